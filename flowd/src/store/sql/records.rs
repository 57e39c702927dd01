//! The table `records`: a page of records at a time, as [`Reader::records`] gives them.
//!
//! Nothing is open between two pages, so a statement that nobody reads keeps no segment.

use std::{
    borrow::Cow,
    ffi::{CStr, CString, c_int},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
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
use crate::store::{ReadError, Reader};

/// Records of the first page: a statement may want few.
const FIRST_PAGE: usize = 256;
/// Records of a page at most, some 5 MB.
const PAGE: usize = 16_384;

pub(super) const MODULE: Module<'static, Records> = Module::eponymous_only_module();

/// Where the records of one statement come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) reader: Reader,
    pub(super) gateway: Arc<str>,
    pub(super) watermark: u64,
    /// Why a page could not be read.
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
        let (range, oldest, page) = (None, None, Vec::new());
        Ok(Cursor { base, source, range, oldest, page, at: 0, size: FIRST_PAGE })
    }
}

/// A place in the records of one range.
#[repr(C)]
pub(super) struct Cursor {
    base: sqlite3_vtab_cursor,
    source: Arc<Source>,
    /// What is left to read; `None`: nothing.
    range: Option<Range>,
    /// The first segment of the range, once a page did not have all of it.
    oldest: Option<PathBuf>,
    page: Vec<Named>,
    at: usize,
    /// Records of the next page.
    size: usize,
}

// SAFETY: the structure has C's layout, and SQLite's own comes first in it.
unsafe impl VTabCursor for Cursor {
    fn filter(
        &mut self,
        _number: c_int,
        plan: Option<&str>,
        values: &Filters<'_>,
    ) -> rusqlite::Result<()> {
        self.range = Some(plan::range(plan.unwrap_or_default(), values, self.source.watermark));
        (self.oldest, self.size) = (None, FIRST_PAGE);
        self.turn()
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.at += 1;
        if self.at < self.page.len() { Ok(()) } else { self.turn() }
    }

    fn eof(&self) -> bool {
        self.at >= self.page.len()
    }

    fn column(&self, context: &mut Context, index: c_int) -> rusqlite::Result<()> {
        let column = usize::try_from(index).ok().and_then(|index| RECORD_COLUMNS.get(index));
        match (self.page.get(self.at), column) {
            (Some(named), Some(column)) => context.set_result((column.value)(named)),
            _ => Ok(()),
        }
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.page.get(self.at).map_or(0, |named| named.record.record_id.cast_signed()))
    }
}

impl Cursor {
    /// Goes to the first record of the next page.
    fn turn(&mut self) -> rusqlite::Result<()> {
        (self.at, self.size) = (0, self.size.min(PAGE));
        self.page.clear();
        // SQLite calls from C, where a panic would end the daemon.
        match catch_unwind(AssertUnwindSafe(|| self.read())) {
            Ok(Ok(())) => {
                self.source.read.fetch_add(self.page.len() as u64, Ordering::Relaxed);
                self.size *= 4;
                Ok(())
            }
            Ok(Err(error)) => Err(self.source.keep(error)),
            Err(_) => Err(rusqlite::Error::ModuleError("the query was cut off".to_owned())),
        }
    }

    fn read(&mut self) -> Result<(), ReadError> {
        let Some(mut range) = self.range.take() else { return Ok(()) };
        let Source { reader, gateway, watermark, .. } = &*self.source;
        let page = &mut self.page;
        let mut take = |record| page.push(Named { record, gateway: gateway.clone() });
        if let Some(id) = range.flow {
            let records = reader.flow(id, *watermark)?.map(|(records, _)| records);
            records.into_iter().flatten().for_each(take);
            return Ok(());
        }
        let first = match self.oldest {
            Some(_) => None,
            None => reader.paths(&range.filter)?.into_iter().next(),
        };
        let mut left = self.size;
        reader.records(&range.filter, range.after, range.last, &mut |record| {
            range.after = record.record_id;
            take(record);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // A page begins behind the last one: it would miss what retention took from before it.
        self.oldest = self.oldest.take().or(first);
        if self.oldest.as_ref().is_some_and(|path| !path.exists()) {
            return Err(ReadError::Removed);
        }
        self.range = (left == 0).then_some(range);
        Ok(())
    }
}
