//! One segment as a reader sees it: rows and chunks of one instant, as one table.
//!
//! - A transaction that is begun with the view sees no step of the writer, so no record twice or
//!   not at all.
//! - Chunks lie before rows: every id in a chunk is below every id of a row.
//! - What is held at a time are the matches of one chunk, or a bounded number of records; where two
//!   threads look for records, the matches of a few.

use std::{
    cell::OnceCell,
    ops::{ControlFlow, RangeInclusive},
    path::Path,
    sync::{Arc, Mutex},
};

use rusqlite::{Connection, ToSql, named_params};

use super::{
    ReadError,
    chunks::{self, Stored, damaged},
    columns::{Allowance, Columns, OfFile},
    digests::{self, Extent},
    known::Known,
    latest::{FileId, Latest},
    leash::Leash,
    listed::Listed,
    reader::{open_file, read},
    relay::Relay,
    row::{self, Names},
    scan::Scan,
    second::Second,
    source::{Shared, Source},
    tail::{Parts, Tail},
    wanted::Wanted,
};
use crate::{
    chunk::{Chunk, ColumnSet, Number, Picked, Row},
    flows::{Decider, Filter, Record, Verdict},
};

/// What SQL can judge of a record besides its time.
const JUDGED: &str = "(:protocol IS NULL OR protocol = :protocol) \
    AND (:verdict IS NULL OR verdict = :verdict) AND (:any_rule OR rule IS :rule)";

/// Records between two looks at the leash.
const LOOK: usize = 64;

/// What of segments readers keep from one query to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    rows: Arc<Tail>,
    names: Arc<Latest<Known>>,
    chunks: Arc<Latest<Listed>>,
    columns: Arc<Columns>,
}

impl Kept {
    /// Of its columns, for one query.
    pub(super) fn allowance(&self) -> Allowance {
        self.columns.allowance()
    }

    /// Lets go of what is kept for a while only.
    pub(super) fn forget_idle(&self) {
        self.columns.forget_idle();
    }
}

/// A segment at one instant.
pub(super) struct Segment {
    pub(super) conn: Connection,
    names: OnceCell<Arc<Names>>,
    /// What to select of a record. The writer brings the newest segments up to date; older ones
    /// stay of their version.
    pub(super) columns: String,
    version: usize,
    leash: Leash,
    /// What is kept from one query to the next, and as which file's.
    kept: Option<(Kept, FileId)>,
    /// Where its columns are kept.
    held: Option<OfFile>,
    /// Where a second thread may help.
    second: Option<Second>,
    /// Of all flows those are wanted that began then.
    begun: Option<Vec<RangeInclusive<i64>>>,
    /// The rows, once they are asked for, and the first and last id of this view.
    rows: OnceCell<Option<(Parts, (u64, u64))>>,
}

impl Source for Segment {
    fn need(&self, stored: &Stored, of: ColumnSet) -> rusqlite::Result<()> {
        stored.need(&self.conn, of)
    }

    fn leash(&self) -> &Leash {
        &self.leash
    }
}

impl Segment {
    /// `None` when the file is only just being made, or has gone.
    pub(super) fn open(path: &Path, leash: &Leash) -> Result<Option<Self>, ReadError> {
        let Some((mut conn, _)) = open_file(path)? else { return Ok(None) };
        leash.hold(&mut conn).map_err(read(path))?;
        let look = || {
            conn.execute_batch("BEGIN")?;
            conn.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))
        };
        let version = look().map_err(read(path))? as usize;
        let (columns, leash) = (row::columns(version), leash.clone());
        let (names, rows) = (OnceCell::new(), OnceCell::new());
        Ok(Some(Self {
            conn,
            names,
            columns,
            version,
            leash,
            kept: None,
            held: None,
            second: None,
            begun: None,
            rows,
        }))
    }

    /// What records point to. Not every question needs it.
    pub(super) fn names(&self) -> rusqlite::Result<&Names> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let names = match &self.kept {
            Some((kept, file)) => kept.names.names(&self.conn, self.version, *file)?,
            None => Names::whole(&self.conn, self.version)?.into(),
        };
        Ok(self.names.get_or_init(|| names))
    }

    /// The same of a segment that nothing else is asked.
    pub(super) fn into_names(self) -> rusqlite::Result<Arc<Names>> {
        self.names()?;
        Ok(self.names.into_inner().unwrap_or_default())
    }

    /// The same, whose rows, names, headers and columns are kept as those of `file`.
    pub(super) fn keeping(self, kept: Kept, file: FileId, allowance: &Allowance) -> Self {
        let held = OfFile::new(kept.columns.clone(), file, allowance.clone());
        Self { kept: Some((kept, file)), held, ..self }
    }

    /// The same, whose records two threads may look for.
    pub(super) fn with_second(self, second: Second) -> Self {
        Self { second: Some(second), ..self }
    }

    /// The same, of whose flows those are wanted that began in one of these stretches.
    pub(super) fn of_flows_begun(self, begun: Option<Vec<RangeInclusive<i64>>>) -> Self {
        Self { begun, ..self }
    }

    /// Its rows up to `watermark`, ascending, where they are kept.
    pub(super) fn kept(
        &self,
        watermark: u64,
    ) -> rusqlite::Result<Option<impl Iterator<Item = &Record>>> {
        if self.rows.get().is_none() {
            let rows = match &self.kept {
                Some((kept, file)) => {
                    kept.rows.of(&self.conn, || self.names(), (&self.columns, *file))?
                }
                None => None,
            };
            self.rows.get_or_init(|| rows);
        }
        let Some(Some((parts, (first, last)))) = self.rows.get() else { return Ok(None) };
        let (first, last) = (*first, watermark.min(*last));
        let rows = parts.iter().flat_map(|part| part.iter());
        Ok(Some(
            rows.skip_while(move |row| row.record_id < first)
                .take_while(move |row| row.record_id <= last),
        ))
    }

    /// The chunks with records above `after` and up to `watermark`, by ascending id.
    pub(super) fn chunks(&self, after: u64, watermark: u64) -> rusqlite::Result<Vec<Stored>> {
        if self.version < chunks::SINCE_VERSION {
            return Ok(Vec::new());
        }
        let mut chunks = match &self.kept {
            Some((kept, file)) if after == 0 => kept.chunks.up_to(&self.conn, watermark, *file),
            _ => chunks::between(&self.conn, after, watermark),
        }?;
        chunks.iter_mut().for_each(|stored| stored.columns.clone_from(&self.held));
        Ok(chunks)
    }

    /// The digests, by ascending id.
    pub(super) fn digests(&self) -> rusqlite::Result<Vec<Extent>> {
        digests::list(&self.conn, self.version)
    }

    /// These chunks, to be looked at record by record.
    pub(super) fn scan<'s>(
        &'s mut self,
        chunks: Vec<Stored>,
        wanted: &'s Wanted,
    ) -> rusqlite::Result<Scan<'s>> {
        self.names()?;
        let Self { conn, names, leash, .. } = self;
        let source = Shared { conn: Mutex::new(conn), leash };
        let chunks = Mutex::new(chunks.into_iter());
        Ok(Scan { source, names: names.get_or_init(Arc::default), wanted, chunks })
    }

    /// Shows what whole records of these chunks may be wanted, a chunk at a time.
    fn relay(
        &mut self,
        wanted: &Wanted,
        chunks: Vec<Stored>,
        mut sink: impl FnMut(&Shared<'_>, &Names, Picked) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.names()?;
        let Self { conn, names, leash, second, .. } = self;
        let names = names.get_or_init(Arc::default);
        let source = Shared { conn: Mutex::new(conn), leash };
        let relay = Relay { source, wanted, of: Chunk::row_columns() };
        relay.run(chunks, second.as_ref(), |found| sink(&relay.source, names, found))
    }

    /// What the filter asks of chunks, whose ids lie in a range too.
    pub(super) fn wanted(
        &self,
        filter: &Filter,
        after: u64,
        watermark: u64,
    ) -> rusqlite::Result<Wanted> {
        let clamp = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        let ids = clamp(after).saturating_add(1)..=clamp(watermark);
        let wanted = Wanted::of(filter, || self.names())?.within(Number::RecordId, ids);
        Ok(match &self.begun {
            Some(begun) => wanted.within_any(Number::FirstSeen, begun),
            None => wanted,
        })
    }

    /// Shows the matching records with ids above `after`, by ascending id.
    pub(super) fn by_id(
        &mut self,
        filter: &Filter,
        watermark: u64,
        after: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = self.wanted(filter, after, watermark)?;
        let mut chunks = self.chunks(after, watermark)?;
        chunks.retain(|stored| wanted.may_have(stored.chunk.header()));
        let mut flow = ControlFlow::Continue(());
        self.relay(&wanted, chunks, |source, names, found| {
            for (place, row) in found.by_id().iter().enumerate() {
                if place.is_multiple_of(LOOK) {
                    source.heed_leash()?;
                }
                flow = show(names, &row, filter, &mut sink);
                if flow.is_break() {
                    break;
                }
            }
            Ok(flow)
        })?;
        match flow {
            ControlFlow::Break(()) => Ok(()),
            ControlFlow::Continue(()) => self.tail_by_id(filter, watermark, after, sink),
        }
    }

    /// The same of the records that are rows.
    pub(super) fn tail_by_id(
        &self,
        filter: &Filter,
        watermark: u64,
        after: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let Some(rows) = self.kept(watermark)? else {
            let narrow = "record_id > :bound AND record_id <= :watermark";
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            return self.tail(filter, watermark, (narrow, after), "record_id", sink);
        };
        let matches = rows.filter(|row| row.record_id > after && filter.matches(row));
        for (place, row) in matches.enumerate() {
            if place.is_multiple_of(LOOK) {
                self.heed_leash()?;
            }
            if sink(row.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the matching records, in any order.
    pub(super) fn each(
        &self,
        filter: &Filter,
        watermark: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = self.wanted(filter, 0, watermark)?;
        for stored in self.chunks(0, watermark)? {
            if self.each_of(&stored, &wanted, filter, &mut sink)?.is_break() {
                return Ok(());
            }
        }
        self.each_of_tail(filter, watermark, sink)
    }

    /// Shows the matching records that are rows, in any order.
    pub(super) fn each_of_tail(
        &self,
        filter: &Filter,
        watermark: u64,
        sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        self.tail_by_id(filter, watermark, 0, sink)
    }

    /// Shows the matching records of a chunk, in any order.
    pub(super) fn each_of(
        &self,
        stored: &Stored,
        wanted: &Wanted,
        filter: &Filter,
        sink: &mut impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let (mut flow, names) = (ControlFlow::Continue(()), self.names()?);
        self.pages(stored, wanted, |rows| {
            for row in &rows {
                if flow.is_continue() {
                    flow = show(names, row, filter, sink);
                }
            }
        })?;
        Ok(flow)
    }

    /// Shows the rows of a chunk that may be wanted, a page at a time.
    fn pages(
        &self,
        stored: &Stored,
        wanted: &Wanted,
        mut sink: impl FnMut(Vec<Row>),
    ) -> rusqlite::Result<()> {
        let pages = self.matching(stored, wanted)?;
        if !pages.is_empty() {
            stored.need(&self.conn, Chunk::row_columns())?;
        }
        for page in pages {
            self.heed_leash()?;
            sink(page.select_rows(page.wanted()).map_err(damaged)?);
        }
        Ok(())
    }

    /// Shows rows. `narrow` and `order` are SQL of ours; SQL judges what it can cheaply, and the
    /// filter itself has the last word.
    pub(super) fn tail(
        &self,
        filter: &Filter,
        watermark: u64,
        (narrow, bound): (&str, i64),
        order: &str,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT {} FROM record JOIN interface USING (interface_id) WHERE {narrow} \
             AND window_end >= :since AND window_end < :until \
             AND {JUDGED} ORDER BY {order}",
            self.columns
        );
        let parameters = named_params! {
            ":bound": bound,
            ":watermark": watermark.cast_signed(),
            ":since": filter.since_ms.unwrap_or(i64::MIN),
            ":until": filter.until_ms.unwrap_or(i64::MAX),
            ":protocol": filter.protocol,
            ":verdict": filter.verdict.map(Verdict::number),
            ":any_rule": filter.rule.is_none(),
            ":rule": filter.rule.as_ref().and_then(Decider::rule),
        };
        self.run(&sql, parameters, |record| {
            if filter.matches(&record) { sink(record) } else { ControlFlow::Continue(()) }
        })
    }

    pub(super) fn run(
        &self,
        sql: &str,
        parameters: &[(&str, &dyn ToSql)],
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query(parameters)?;
        while let Some(row) = rows.next()? {
            if sink(row::record(row, self.names()?)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Shows a row of a chunk, if it is wanted.
fn show(
    names: &Names,
    row: &Row,
    filter: &Filter,
    sink: &mut impl FnMut(Record) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let record = names.record(row);
    if filter.matches(&record) { sink(record) } else { ControlFlow::Continue(()) }
}
