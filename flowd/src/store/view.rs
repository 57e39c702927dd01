//! One segment as a reader sees it: rows and chunks of one instant, as one table.
//!
//! - A transaction that is begun with the view sees no step of the writer, so no record twice or
//!   not at all.
//! - Chunks lie before rows: every id in a chunk is below every id of a row.
//! - What is held at a time are the matches of one chunk, or a bounded number of records.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use rusqlite::{Connection, ToSql, ffi, named_params};

use super::{
    ReadError,
    chunks::{self, Stored, damaged},
    leash::Leash,
    reader::{open_file, read},
    row::{self, Names},
    wanted::Wanted,
};
use crate::{
    chunk::{Chunk, ColumnId, ColumnSet, Member, Number, Row, Selection},
    flows::{Decider, Filter, Record, Tuple, Verdict},
    live::Position,
};

/// The order of positions, newest first.
const NEWEST_FIRST: &str = "first_seen DESC, interface.name DESC, protocol DESC, peer_addr DESC, \
    remote_addr DESC, peer_port DESC, remote_port DESC, overflow DESC, record_id DESC";

/// What SQL can judge of a record besides its time.
pub(super) const JUDGED: &str = "(:protocol IS NULL OR protocol = :protocol) \
    AND (:verdict IS NULL OR verdict = :verdict) AND (:any_rule OR rule IS :rule)";

/// Records that are put into order together: at first, since a page is all that most want, and at
/// most, as many as memory is meant for. Tests have few records.
const FIRST_ROOM: usize = if cfg!(test) { 3 } else { 512 };
const MOST_ROOM: usize = if cfg!(test) { 16 } else { 32_768 };
/// Records between two looks at the leash.
const LOOK: usize = 64;

/// A segment at one instant.
pub(super) struct Segment {
    pub(super) conn: Connection,
    pub(super) names: Names,
    /// What to select of a record. The writer brings the newest segments up to date; older ones
    /// stay of their version.
    columns: String,
    version: usize,
    leash: Leash,
}

/// Where a record stands, newest flows first.
type Key = (i64, Arc<str>, Tuple, bool, u64);

impl Segment {
    /// `None` when the file is only just being made, or has gone.
    pub(super) fn open(path: &Path, leash: &Leash) -> Result<Option<Self>, ReadError> {
        let Some((mut conn, _)) = open_file(path)? else { return Ok(None) };
        leash.hold(&mut conn).map_err(read(path))?;
        let look = || {
            conn.execute_batch("BEGIN")?;
            let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let words = chunks::words(&conn, version as usize)?;
            Ok((version as usize, Names { words, ..Names::read(&conn)? }))
        };
        let (version, names) = look().map_err(read(path))?;
        let (columns, leash) = (row::columns(version), leash.clone());
        Ok(Some(Self { conn, names, columns, version, leash }))
    }

    /// The chunks with records above `after` and up to `watermark`, by ascending id.
    pub(super) fn chunks(&self, after: u64, watermark: u64) -> rusqlite::Result<Vec<Stored>> {
        if self.version < chunks::SINCE_VERSION {
            return Ok(Vec::new());
        }
        chunks::between(&self.conn, after, watermark)
    }

    /// What the filter asks of chunks, whose ids lie in a range too.
    pub(super) fn wanted(&self, filter: &Filter, after: u64, watermark: u64) -> Wanted {
        let clamp = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        Wanted::of(filter, &self.names)
            .within(Number::RecordId, clamp(after).saturating_add(1)..=clamp(watermark))
    }

    /// Shows the matching records with ids above `after`, by ascending id.
    pub(super) fn by_id(
        &self,
        filter: &Filter,
        watermark: u64,
        after: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = self.wanted(filter, after, watermark);
        for mut stored in self.chunks(after, watermark)? {
            let mut found = Vec::new();
            self.pages(&mut stored, &wanted, |rows| found.extend(rows))?;
            found.sort_unstable_by_key(|row: &Row| row.record_id);
            for (place, row) in found.iter().enumerate() {
                if place.is_multiple_of(LOOK) {
                    self.heed_leash()?;
                }
                if self.show(row, filter, &mut sink).is_break() {
                    return Ok(());
                }
            }
        }
        let narrow = "record_id > :bound AND record_id <= :watermark";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.tail(filter, watermark, (narrow, after), "record_id", sink)
    }

    /// Shows the matching records, in any order.
    pub(super) fn each(
        &self,
        filter: &Filter,
        watermark: u64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = self.wanted(filter, 0, watermark);
        for mut stored in self.chunks(0, watermark)? {
            if self.each_of(&mut stored, &wanted, filter, &mut sink)?.is_break() {
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
        let narrow = "record_id > :bound AND record_id <= :watermark";
        self.tail(filter, watermark, (narrow, 0), "record_id", sink)
    }

    /// Shows the matching records of a chunk, in any order.
    pub(super) fn each_of(
        &self,
        stored: &mut Stored,
        wanted: &Wanted,
        filter: &Filter,
        sink: &mut impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        self.pages(stored, wanted, |rows| {
            for row in &rows {
                if flow.is_continue() {
                    flow = self.show(row, filter, sink);
                }
            }
        })?;
        Ok(flow)
    }

    /// Shows the matching records of flows at or below `before`, by descending position.
    pub(super) fn newest_first(
        &self,
        filter: &Filter,
        watermark: u64,
        before: Option<&Position>,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut bound = before.map_or(i64::MAX, |before| before.first_seen_ms);
        let mut chunks = self.chunks(0, watermark)?;
        if chunks.is_empty() {
            return self.newest_of_tail(filter, watermark, bound, sink);
        }
        let newest = |stored: &Stored| *stored.chunk.header().zone(Number::FirstSeen).end();
        chunks.sort_by_key(|stored| std::cmp::Reverse(newest(stored)));
        let wanted = self.wanted(filter, 0, watermark);
        let (mut last, mut room): (Option<Key>, usize) = (None, FIRST_ROOM);
        loop {
            let mut best = Best { room, below: last.take(), records: BTreeMap::new() };
            self.newest_of_tail(filter, watermark, bound, |record| best.offer(record))?;
            for stored in &chunks {
                let least = best.least();
                if newest(stored) < least {
                    break;
                }
                // What it reads is let go of before the next one.
                let mut stored = stored.unread();
                let wanted = wanted.within(Number::FirstSeen, least..=bound);
                let offer = &mut |record| {
                    let _better_ones_may_follow = best.offer(record);
                    ControlFlow::Continue(())
                };
                let _all = self.each_of(&mut stored, &wanted, filter, offer)?;
            }
            let is_last = best.records.len() < room;
            while let Some((key, record)) = best.records.pop_last() {
                if sink(record).is_break() {
                    return Ok(());
                }
                bound = key.0;
                last = Some(key);
            }
            if is_last {
                return Ok(());
            }
            room = (room * 4).min(MOST_ROOM);
        }
    }

    fn newest_of_tail(
        &self,
        filter: &Filter,
        watermark: u64,
        bound: i64,
        sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        // The unary plus leaves the choice of index to `first_seen`.
        let narrow = "first_seen <= :bound AND +record_id <= :watermark";
        self.tail(filter, watermark, (narrow, bound), NEWEST_FIRST, sink)
    }

    /// Shows the records of flows that were first seen then, by ascending id.
    pub(super) fn with_first_seen(
        &self,
        first_seen_ms: i64,
        watermark: u64,
        mut sink: impl FnMut(Record),
    ) -> rusqlite::Result<()> {
        let wanted = self
            .wanted(&Filter::default(), 0, watermark)
            .within(Number::FirstSeen, first_seen_ms..=first_seen_ms);
        for mut stored in self.chunks(0, watermark)? {
            if !self.may_have_flow(&mut stored, first_seen_ms)? {
                continue;
            }
            let mut found = Vec::new();
            self.pages(&mut stored, &wanted, |rows| found.extend(rows))?;
            found.sort_unstable_by_key(|row: &Row| row.record_id);
            found.iter().for_each(|row| sink(self.names.record(row)));
        }
        let sql = format!(
            "SELECT {} FROM record WHERE first_seen = :first_seen AND +record_id <= :watermark \
             ORDER BY record_id",
            self.columns
        );
        let parameters = named_params! {
            ":first_seen": first_seen_ms,
            ":watermark": watermark.cast_signed(),
        };
        self.run(&sql, parameters, |record| {
            sink(record);
            ControlFlow::Continue(())
        })
    }

    /// Flows that start in a chunk are in a range; others are in its filter.
    fn may_have_flow(&self, stored: &mut Stored, first_seen_ms: i64) -> rusqlite::Result<bool> {
        let header = stored.chunk.header();
        if !header.zone(Number::FirstSeen).contains(&first_seen_ms) {
            return Ok(false);
        }
        if header.opened().is_some_and(|opened| opened.contains(&first_seen_ms)) {
            return Ok(true);
        }
        stored.need(&self.conn, ColumnSet::default().with(ColumnId::Members))?;
        let members = stored.chunk.members().map_err(damaged)?;
        Ok(members.may_have(Member::Older(first_seen_ms)))
    }

    /// Shows the rows of a chunk that may be wanted, a page at a time.
    fn pages(
        &self,
        stored: &mut Stored,
        wanted: &Wanted,
        mut sink: impl FnMut(Vec<Row>),
    ) -> rusqlite::Result<()> {
        let Some(selections) = self.selections(stored, wanted)? else { return Ok(()) };
        stored.need(&self.conn, Chunk::row_columns())?;
        for (page, selection) in stored.chunk.pages().zip(&selections) {
            if *selection != Selection::Nothing {
                self.heed_leash()?;
                sink(page.select_rows(selection).map_err(damaged)?);
            }
        }
        Ok(())
    }

    /// What is wanted of each page of a chunk; `None`: nothing.
    pub(super) fn selections(
        &self,
        stored: &mut Stored,
        wanted: &Wanted,
    ) -> rusqlite::Result<Option<Vec<Selection>>> {
        let Some(plan) = wanted.plan(&self.conn, stored)? else { return Ok(None) };
        stored.need(&self.conn, plan.columns())?;
        let mut selections = Vec::with_capacity(stored.chunk.header().pages());
        for page in stored.chunk.pages() {
            self.heed_leash()?;
            selections.push(plan.select(&page).map_err(damaged)?);
        }
        let is_nothing = |selection: &Selection| *selection == Selection::Nothing;
        Ok((!selections.iter().all(is_nothing)).then_some(selections))
    }

    fn show(
        &self,
        row: &Row,
        filter: &Filter,
        sink: &mut impl FnMut(Record) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let record = self.names.record(row);
        if filter.matches(&record) { sink(record) } else { ControlFlow::Continue(()) }
    }

    /// An error as of an interrupted query, when nobody waits for the answer.
    pub(super) fn heed_leash(&self) -> rusqlite::Result<()> {
        match self.leash.over() {
            None => Ok(()),
            Some(_) => {
                let interrupted = ffi::Error::new(ffi::SQLITE_INTERRUPT);
                Err(rusqlite::Error::SqliteFailure(interrupted, None))
            }
        }
    }

    /// Shows rows. `narrow` and `order` are SQL of ours; SQL judges what it can cheaply, and the
    /// filter itself has the last word.
    fn tail(
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

    fn run(
        &self,
        sql: &str,
        parameters: &[(&str, &dyn ToSql)],
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut query = self.conn.prepare_cached(sql)?;
        let mut rows = query.query(parameters)?;
        while let Some(row) = rows.next()? {
            if sink(row::record(row, &self.names)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The newest records below a place, in whatever order they come.
struct Best {
    room: usize,
    below: Option<Key>,
    records: BTreeMap<Key, Record>,
}

impl Best {
    /// Breaks when it is full of better ones.
    fn offer(&mut self, record: Record) -> ControlFlow<()> {
        let Record { first_seen_ms, tuple, overflow, record_id, .. } = record;
        let key = (first_seen_ms, record.interface.clone(), tuple, overflow, record_id);
        if self.below.as_ref().is_some_and(|below| key >= *below) {
            return ControlFlow::Continue(());
        }
        if self.records.len() == self.room {
            if self.records.first_key_value().is_some_and(|(least, _)| key < *least) {
                return ControlFlow::Break(());
            }
            self.records.pop_first();
        }
        self.records.insert(key, record);
        ControlFlow::Continue(())
    }

    /// When the oldest flow was first seen that another record has to be better than.
    fn least(&self) -> i64 {
        match self.records.first_key_value() {
            Some(((first_seen_ms, ..), _)) if self.records.len() == self.room => *first_seen_ms,
            _ => i64::MIN,
        }
    }
}
