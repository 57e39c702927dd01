//! The table `records`: a batch of records at a time, of which a row is made when SQLite asks for it.

use std::{
    borrow::Cow,
    cell::OnceCell,
    ffi::{CStr, CString, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::vtab::{
    Context, Filters, IndexInfo, Module, VTab, VTabConnection, VTabCursor, sqlite3_vtab,
    sqlite3_vtab_cursor,
};

use super::{
    plan::{self, Range},
    tables::{self, Named, RECORD_COLUMNS},
};
use crate::store::{ReadError, Reader, batch::Batch, opened::Reached};

/// Rows of the first batch: a statement may want few.
const FEW: usize = 256;
/// Rows of a batch at most, some 5 MB; a chunk has four times as many at most.
const MANY: usize = 16_384;

pub(super) const MODULE: Module<'static, Records> = Module::eponymous_only_module();

/// Where the records of one statement come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) reader: Reader,
    pub(super) gateway: Arc<str>,
    pub(super) watermark: u64,
    /// Why a batch could not be read.
    pub(super) failed: Mutex<Option<ReadError>>,
    /// How many records were read.
    pub(super) read: AtomicU64,
}

impl Source {
    /// What went wrong while reading, if anything.
    pub(super) fn failure(&self) -> Option<ReadError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error stays here; SQLite gets a word.
    fn keep(&self, error: ReadError) -> rusqlite::Error {
        let told = rusqlite::Error::ModuleError(error.to_string());
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }
}

/// The table.
#[repr(C)]
pub(super) struct Records {
    base: sqlite3_vtab,
    source: Arc<Source>,
}

// SAFETY: the structure has C's layout, and SQLite's own comes first in it.
unsafe impl VTab<'_> for Records {
    type Aux = Arc<Source>;
    type Cursor = Cursor;

    fn connect(
        _db: &mut VTabConnection,
        source: Option<&Arc<Source>>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        let Some(source) = source else {
            return Err(rusqlite::Error::ModuleError("the table has no source".to_owned()));
        };
        let definition = CString::new(tables::definition("records", RECORD_COLUMNS))?;
        Ok((definition.into(), Self { base: sqlite3_vtab::default(), source: source.clone() }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        plan::choose(info).map(|()| true)
    }

    fn open(&mut self) -> rusqlite::Result<Cursor> {
        let source = self.source.clone();
        let base = sqlite3_vtab_cursor::default();
        let (range, reached, batch) = (None, Reached::default(), Batch::default());
        Ok(Cursor { base, source, range, reached, batch, at: 0, named: OnceCell::new(), most: FEW })
    }
}

/// A place in the records of one range.
#[repr(C)]
pub(super) struct Cursor {
    base: sqlite3_vtab_cursor,
    source: Arc<Source>,
    /// What is left to read; `None`: nothing.
    range: Option<Range>,
    reached: Reached,
    batch: Batch,
    at: usize,
    /// The record at this place, once it is asked for.
    named: OnceCell<Option<Named>>,
    /// Rows of the next batch.
    most: usize,
}

// SAFETY: the structure has C's layout, and SQLite's own comes first in it.
unsafe impl VTabCursor for Cursor {
    fn filter(
        &mut self,
        _number: c_int,
        plan: Option<&str>,
        values: &Filters<'_>,
    ) -> rusqlite::Result<()> {
        let range = plan::range(plan.unwrap_or_default(), values, self.source.watermark);
        (self.reached, self.most) = (Reached::new(range.after), FEW);
        self.range = Some(range);
        self.turn()
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.at += 1;
        self.named.take();
        if self.eof() { self.turn() } else { Ok(()) }
    }

    fn eof(&self) -> bool {
        self.at >= self.batch.len()
    }

    fn column(&self, context: &mut Context, index: c_int) -> rusqlite::Result<()> {
        let column = usize::try_from(index).ok().and_then(|index| RECORD_COLUMNS.get(index));
        match (self.named(), column) {
            (Some(named), Some(column)) => context.set_result((column.value)(named)),
            _ => Ok(()),
        }
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.named().map_or(0, |named| named.record.record_id.cast_signed()))
    }
}

impl Cursor {
    fn named(&self) -> Option<&Named> {
        let named = || {
            let record = self.batch.record(self.at)?;
            Some(Named { record, gateway: self.source.gateway.clone() })
        };
        self.named.get_or_init(named).as_ref()
    }

    /// Goes to the first record of the next batch.
    fn turn(&mut self) -> rusqlite::Result<()> {
        self.at = 0;
        self.named.take();
        // What was read is let go of before the next.
        self.batch = Batch::default();
        // SQLite calls from C, where a panic would end the daemon.
        match catch_unwind(AssertUnwindSafe(|| self.read())) {
            Ok(Ok(batch)) => {
                self.source.read.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.batch = batch;
                self.most = (self.most * 4).min(MANY);
                Ok(())
            }
            Ok(Err(error)) => Err(self.source.keep(error)),
            Err(_) => Err(rusqlite::Error::ModuleError("the query was cut off".to_owned())),
        }
    }

    fn read(&mut self) -> Result<Batch, ReadError> {
        let Some(range) = &self.range else { return Ok(Batch::default()) };
        let Source { reader, watermark, .. } = &*self.source;
        let Some(id) = range.flow else {
            return reader.batch(
                &range.filter,
                &mut self.reached,
                range.last,
                (self.most, range.need),
            );
        };
        self.range = None;
        let records = reader.flow(id, *watermark)?.map(|(records, _)| records);
        Ok(Batch::Rows(records.unwrap_or_default()))
    }
}
