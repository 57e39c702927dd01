//! One segment as a reader sees it: rows and chunks of one instant, as one table.
//!
//! - A transaction that is begun with the view sees no step of the writer, so no record twice or
//!   not at all.
//! - Chunks lie before rows: every id in a chunk is below every id of a row.
//! - What is held at a time are the matches of one chunk, or a bounded number of records.

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
    digests::{self, Extent},
    leash::Leash,
    reader::{open_file, read},
    row::{self, Names},
    scan::{Scan, Source},
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

/// A segment at one instant.
pub(super) struct Segment {
    pub(super) conn: Connection,
    names: OnceCell<Names>,
    /// What to select of a record. The writer brings the newest segments up to date; older ones
    /// stay of their version.
    pub(super) columns: String,
    version: usize,
    leash: Leash,
    /// Where rows are kept from one query to the next, and as which file's.
    tail: Option<(Arc<Tail>, (u64, u64))>,
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
        Ok(Some(Self { conn, names, columns, version, leash, tail: None, begun: None, rows }))
    }

    /// What records point to. Not every question needs it.
    pub(super) fn names(&self) -> rusqlite::Result<&Names> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let words = chunks::words(&self.conn, self.version)?;
        let names = Names { words, ..Names::read(&self.conn)? };
        Ok(self.names.get_or_init(|| names))
    }

    /// The same of a segment that nothing else is asked.
    pub(super) fn into_names(self) -> rusqlite::Result<Names> {
        self.names()?;
        Ok(self.names.into_inner().unwrap_or_default())
    }

    /// The same, whose rows are kept as those of `file`.
    pub(super) fn keeping(self, tail: Arc<Tail>, file: (u64, u64)) -> Self {
        Self { tail: Some((tail, file)), ..self }
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
            let rows = match &self.tail {
                Some((tail, file)) => {
                    tail.of(&self.conn, || self.names(), (&self.columns, *file))?
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
        chunks::between(&self.conn, after, watermark)
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
        let (conn, chunks) = (Mutex::new(conn), Mutex::new(chunks.into_iter()));
        Ok(Scan { conn, names: names.get_or_init(Names::default), leash, wanted, chunks })
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
        &self,
        filter: &Filter,
        watermark: u64,
        after: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = self.wanted(filter, after, watermark)?;
        for stored in self.chunks(after, watermark)? {
            let found = self.pick(&stored, &wanted, Chunk::row_columns())?.by_id();
            for (place, row) in found.iter().enumerate() {
                if place.is_multiple_of(LOOK) {
                    self.heed_leash()?;
                }
                if show(self.names()?, &row, filter, &mut sink).is_break() {
                    return Ok(());
                }
            }
        }
        self.tail_by_id(filter, watermark, after, sink)
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

    /// What these columns say of the records of a chunk that may be wanted, in its order.
    pub(super) fn pick(
        &self,
        stored: &Stored,
        wanted: &Wanted,
        of: ColumnSet,
    ) -> rusqlite::Result<Picked> {
        let pages = self.matching(stored, wanted)?;
        if !pages.is_empty() {
            stored.need(&self.conn, of.and(Number::RecordId.columns()))?;
        }
        Picked::of(&stored.chunk, pages, of).map_err(damaged)
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
