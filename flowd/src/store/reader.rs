//! Readers: they open segments read-only, a query at a time, and never hold the writer up.
//!
//! - A record belongs to a range when its `window_end` does.
//! - Only records up to a watermark are read; together with what the drain thread says is counted
//!   but not recorded at that instant, they are everything, once.
//! - A page of flows: every segment gives its own first flows in the order of positions; a flow
//!   that is in the page is among the first of every segment that has it, so merging the pages of
//!   the segments loses nothing.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, ffi};

use super::{
    OpenError, ReadError, chunks,
    columns::Allowance,
    failure,
    latest::FileId,
    leash::{Leash, Over},
    newest::Page,
    opened::{Opened, Reached},
    proof::{self, ProveError},
    schema,
    second::Second,
    sought::Sought,
    tallies::{Tallies, Tally},
    view::{Kept, Segment},
    writer,
};
use crate::{
    flows::{Filter, Flow, FlowId, Grouping, Ranking, Record, Series, State, Summary},
    live::Position,
    seal::{Hash, Proof, PublicKey},
};

const DAY_MS: i64 = 86_400_000;
/// The last record of a flow is written when its idle time is over, but belongs to its last packet.
/// The longest idle time that the configuration accepts is a week.
const LATE_MS: i64 = 8 * DAY_MS;
/// Groups that a ranking has at most: some 200 MB.
const GROUPS: usize = 1_000_000;
/// How long a reader waits while a segment is being made or recovered.
const BUSY: Duration = Duration::from_secs(5);
/// How long it tries again where SQLite does not wait. On a disk that is read-only for good it is in
/// vain.
const BETWEEN: Duration = Duration::from_millis(500);

/// A flow from the store, and whether the ledger has it as open.
pub type StoredFlow = (Flow, bool);

/// Reads the store of one gateway.
#[derive(Clone, Debug)]
pub struct Reader {
    segments: PathBuf,
    gateway: Arc<str>,
    /// Who sets damaged segments aside.
    reports: Option<mpsc::Sender<PathBuf>>,
    /// Whether one is being looked at.
    is_looking: Arc<AtomicBool>,
    kept: Kept,
    /// For sums, and for records, whose reader may be slow.
    second: Second,
    pub(super) of_records: Second,
    leash: Leash,
    /// Of the query that has the leash.
    allowance: Option<Allowance>,
}

impl Reader {
    /// A reader of the store in `dir`, which need not exist yet.
    pub fn new(dir: &Path, gateway: &str) -> Self {
        Self {
            segments: dir.join("segments"),
            gateway: gateway.into(),
            reports: None,
            is_looking: Arc::default(),
            kept: Kept::default(),
            second: Second::new(),
            of_records: Second::new(),
            leash: Leash::default(),
            allowance: None,
        }
    }

    /// The same reader, which tells a [`super::Writer`] of segments that are damaged.
    pub fn reporting(mut self, reports: mpsc::Sender<PathBuf>) -> Self {
        self.reports = Some(reports);
        self
    }

    /// The same reader, whose queries end when the leash is over.
    pub fn on(mut self, leash: Leash) -> Self {
        self.leash = leash;
        self.allowance = Some(self.kept.allowance());
        self
    }

    /// Lets go of what readers keep for a while only, and nobody has asked for in a minute.
    pub fn forget_idle(&self) {
        self.kept.forget_idle();
    }

    /// Where the segments are.
    pub fn directory(&self) -> &Path {
        &self.segments
    }

    /// Whether the history is as it was sealed: see [`super::prove`].
    pub fn prove(&self, keys: &[PublicKey], known: &[Hash]) -> Result<Proof, ProveError> {
        let store = self.segments.parent().expect("it is a directory of the store");
        proof::within(store, (keys, known), &self.leash)
    }

    /// Totals of the stored records that match, up to `watermark`.
    pub fn summary(&self, filter: &Filter, watermark: u64) -> Result<Summary, ReadError> {
        let mut sum = Summary::default();
        let opening = filter.opening();
        let Some(mut tallies) = Tallies::new(filter, &[], None, watermark) else {
            self.each(filter, watermark, &mut |record| {
                sum.absorb(&record, opening);
                ControlFlow::Continue(())
            })?;
            return Ok(sum);
        };
        for opened in self.opened(filter)? {
            let (path, mut segment) = opened?;
            let mut add = || {
                tallies.add_chunks(&mut segment, &self.second, |_| ControlFlow::Continue(()))?;
                segment.each_of_tail(filter, watermark, |record| {
                    sum.absorb(&record, opening);
                    ControlFlow::Continue(())
                })
            };
            add().map_err(self.failed(&path))?;
        }
        tallies.take(|tally| sum.merge(&tally.sum));
        Ok(sum)
    }

    /// The stored records that match, up to `watermark`, summed by group.
    pub fn top(
        &self,
        filter: &Filter,
        by: impl Into<Grouping>,
        watermark: u64,
    ) -> Result<Ranking, ReadError> {
        let mut ranking = Ranking::new(by);
        let by = ranking.by().properties().to_vec();
        let opening = filter.opening();
        let mut absorb = |record: Record| {
            ranking.absorb(&record, opening);
            if ranking.groups() > GROUPS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match Tallies::new(filter, &by, None, watermark) {
            None => self.each(filter, watermark, &mut absorb)?,
            Some(mut tallies) => {
                for opened in self.opened(filter)? {
                    let (path, mut segment) = opened?;
                    let are_few = |tallies: &mut Tallies<'_>| match tallies.groups() > GROUPS {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    };
                    tallies
                        .add_chunks(&mut segment, &self.second, are_few)
                        .and_then(|()| segment.each_of_tail(filter, watermark, &mut absorb))
                        .map_err(self.failed(&path))?;
                    if tallies.groups() > GROUPS {
                        return Err(ReadError::TooManyGroups(GROUPS));
                    }
                }
                tallies.take(|tally| ranking.add(tally.group, &tally.sum));
            }
        }
        if ranking.groups() > GROUPS { Err(ReadError::TooManyGroups(GROUPS)) } else { Ok(ranking) }
    }

    /// The stored records that match, up to `watermark`, added to a series.
    pub fn series(
        &self,
        filter: &Filter,
        mut series: Series,
        watermark: u64,
    ) -> Result<Series, ReadError> {
        let opening = filter.opening();
        let by = series.by().map_or(Vec::new(), |by| by.properties().to_vec());
        let Some(mut tallies) = Tallies::new(filter, &by, Some(series.step()), watermark) else {
            self.each(filter, watermark, &mut |record| {
                series.absorb(&record, opening);
                ControlFlow::Continue(())
            })?;
            return Ok(series);
        };
        for opened in self.opened(filter)? {
            let (path, mut segment) = opened?;
            let mut add = || {
                // A series has few lines, whatever a chunk has.
                tallies.add_chunks(&mut segment, &self.second, |tallies| {
                    tallies.take(|tally| {
                        let Tally { group, start_ms, sum, of_step } = tally;
                        series.add(&group, start_ms, &sum, &of_step);
                    });
                    ControlFlow::Continue(())
                })?;
                segment.each_of_tail(filter, watermark, |record| {
                    series.absorb(&record, opening);
                    ControlFlow::Continue(())
                })
            };
            add().map_err(self.failed(&path))?;
        }
        Ok(series)
    }

    /// The first `limit` flows with matching records strictly below `before`, newest first.
    pub fn flows(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
        watermark: u64,
    ) -> Result<Vec<StoredFlow>, ReadError> {
        let mut ledger = match filter.state {
            Some(_) => self.whole_ledger(watermark)?,
            None => self.open_ledger(watermark)?,
        };
        let begun = ledger.as_ref().and_then(|ledger| ledger.stretches(filter));
        let mut merged: BTreeMap<Position, StoredFlow> = BTreeMap::new();
        // The last one of as many as are wanted.
        let mut least: Option<Position> = None;
        let mut opened = self.opened(filter)?.newest_first();
        loop {
            let behind = least.as_ref().zip(opened.ahead());
            if behind.is_some_and(|(least, path)| is_long_before(path, least.first_seen_ms)) {
                break;
            }
            let Some(next) = opened.next() else { break };
            let (path, segment) = next?;
            let segment = segment.of_flows_begun(begun.clone());
            let mut taken = 0;
            let mut current: Option<(Position, bool)> = None;
            let least_ms = least.as_ref().map_or(i64::MIN, |least| least.first_seen_ms);
            let page = Page { before, least_ms, flows: limit };
            segment
                .newest_first(filter, watermark, page, |record| {
                    let position = Position::of(&record);
                    if before.is_some_and(|before| position >= *before) {
                        return ControlFlow::Continue(());
                    }
                    if least.as_ref().is_some_and(|least| position < *least) {
                        return ControlFlow::Break(());
                    }
                    let wanted = match &current {
                        Some((known, wanted)) if *known == position => *wanted,
                        _ => {
                            let open = ledger.as_mut().is_some_and(|ledger| ledger.has(&record));
                            let wanted =
                                filter.state.is_none_or(|state| (state == State::Open) == open);
                            if wanted && taken == limit {
                                return ControlFlow::Break(());
                            }
                            taken += usize::from(wanted);
                            if wanted && !merged.contains_key(&position) {
                                // The record itself follows below.
                                merged.insert(position.clone(), (Flow::empty(&record), open));
                            }
                            current = Some((position.clone(), wanted));
                            wanted
                        }
                    };
                    if wanted && let Some((flow, _)) = merged.get_mut(&position) {
                        flow.absorb(record);
                    }
                    ControlFlow::Continue(())
                })
                .map_err(self.failed(&path))?;
            while merged.len() > limit {
                merged.pop_first();
            }
            if merged.len() == limit {
                least = merged.first_key_value().map(|(position, _)| position.clone());
            }
        }
        Ok(merged.into_values().rev().collect())
    }

    /// One flow with all its records up to `watermark`, oldest first, and whether it is open.
    pub fn flow(
        &self,
        id: FlowId,
        watermark: u64,
    ) -> Result<Option<(Vec<Record>, bool)>, ReadError> {
        let mut sought = Sought::new(&self.gateway, id);
        let reached = Filter { since_ms: Some(id.first_seen_ms()), ..Filter::default() };
        for opened in self.opened(&reached)? {
            let (path, segment) = opened?;
            segment.seek(&mut sought, watermark).map_err(self.failed(&path))?;
            if sought.has_ended() {
                break;
            }
        }
        let Some(newest) = sought.records.last() else { return Ok(None) };
        let open = !sought.has_ended()
            && self.open_ledger(watermark)?.is_some_and(|mut ledger| ledger.has(newest));
        Ok(Some((sought.records, open)))
    }

    /// Shows the matching records with ids above `after` and up to `watermark` to `sink`, by
    /// ascending id, until it breaks. Holds what is found in a chunk at a time, or in a few.
    pub fn records(
        &self,
        filter: &Filter,
        after: u64,
        watermark: u64,
        sink: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.records_on(filter, &mut Reached::new(after), watermark, sink)
    }

    /// The same from where the query before ended: an error, when what it read has gone since.
    pub fn records_on(
        &self,
        filter: &Filter,
        reached: &mut Reached,
        watermark: u64,
        sink: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let Reached { after: last, segment: current } = reached;
        if current.as_ref().is_some_and(|path| !path.exists()) {
            return Err(ReadError::Removed);
        }
        let after = *last;
        let mut show = |record: Record| {
            *last = record.record_id;
            sink(record)
        };
        self.over(filter, watermark, &mut show, |path, segment, sink| {
            *current = Some(path.to_owned());
            segment.by_id(filter, watermark, after, sink)
        })
    }

    /// The same in any order, which takes less.
    fn each(
        &self,
        filter: &Filter,
        watermark: u64,
        sink: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.over(filter, watermark, sink, |_, segment, sink| segment.each(filter, watermark, sink))
    }

    /// Shows what `read` finds in each segment to `sink`, but flows that are not in the filter's
    /// state, until it breaks.
    fn over(
        &self,
        filter: &Filter,
        watermark: u64,
        sink: &mut dyn FnMut(Record) -> ControlFlow<()>,
        mut read: impl FnMut(
            &Path,
            &mut Segment,
            &mut dyn FnMut(Record) -> ControlFlow<()>,
        ) -> rusqlite::Result<()>,
    ) -> Result<(), ReadError> {
        let mut ledger = self.ledger_for(filter.state, watermark)?;
        let begun = ledger.as_ref().and_then(|ledger| ledger.stretches(filter));
        let mut stopped = false;
        for opened in self.opened(filter)? {
            let (path, segment) = opened?;
            let mut segment = segment.of_flows_begun(begun.clone());
            let mut wanted = |record: Record| {
                if ledger.as_mut().is_some_and(|ledger| !ledger.wants(&record)) {
                    return ControlFlow::Continue(());
                }
                let flow = sink(record);
                stopped = flow.is_break();
                flow
            };
            read(&path, &mut segment, &mut wanted).map_err(self.failed(&path))?;
            if stopped {
                break;
            }
        }
        Ok(())
    }

    /// The segments that can have records of the range, oldest first.
    pub(super) fn paths(&self, filter: &Filter) -> Result<Vec<PathBuf>, ReadError> {
        let days = match writer::list(&self.segments) {
            Ok(days) => days,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(ReadError::List { path: self.segments.clone(), source });
            }
        };
        let newest = days.last().cloned();
        let in_reach = |day: &String| {
            let Some(start_ms) = start_of(day) else { return false };
            filter.since_ms.is_none_or(|since| since < start_ms.saturating_add(DAY_MS))
                // Where the clock was set back, the newest has what came before its day.
                && (newest.as_ref() == Some(day)
                    || filter.until_ms.is_none_or(|until| start_ms - LATE_MS < until))
        };
        let path = |day: String| self.segments.join(format!("{day}.sqlite"));
        Ok(days.into_iter().filter(in_reach).map(path).collect())
    }

    /// The segments that can have records of the range, one after the other.
    pub(super) fn opened(&self, filter: &Filter) -> Result<Opened<'_>, ReadError> {
        Ok(Opened::new(self, self.paths(filter)?))
    }

    /// What the query that asks may have kept.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone().unwrap_or_else(|| self.kept.allowance())
    }

    /// A segment, unless it is only being made or has gone.
    pub(super) fn segment(
        &self,
        path: &Path,
        allowance: &Allowance,
    ) -> Result<Option<Segment>, ReadError> {
        if let Some(over) = self.leash.over() {
            return Err(over.into());
        }
        let file = FileId::of(path);
        let opened = Segment::open(path, &self.leash).map_err(|error| self.of_leash(error));
        let opened = opened.inspect_err(|error| self.report(error))?;
        // It was opened in between.
        let file = file.filter(|file| FileId::of(path) == Some(*file));
        let opened = opened.map(|segment| segment.with_second(self.of_records.clone()));
        Ok(opened.map(|segment| match file {
            Some(file) => segment.keeping(self.kept.clone(), file, allowance),
            None => segment,
        }))
    }

    pub(super) fn failed(&self, path: &Path) -> impl Fn(rusqlite::Error) -> ReadError {
        let wrap = read(path);
        move |source| {
            let error = self.of_leash(wrap(source));
            self.report(&error);
            error
        }
    }

    /// What was interrupted says why.
    fn of_leash(&self, error: ReadError) -> ReadError {
        match &error {
            ReadError::Sqlite { source, .. } if failure::is_interruption(source) => {
                self.leash.over().map_or(error, ReadError::from)
            }
            _ => error,
        }
    }

    /// Looks again at a segment that a query found damaged, whole, and reports it if it is. One at
    /// a time: a large one takes a while.
    pub(super) fn report(&self, error: &ReadError) {
        let (ReadError::Damaged { path, .. }, Some(reports)) = (error, &self.reports) else {
            return;
        };
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        if is_damaged(path) {
            // A writer that has gone sets nothing aside.
            let _gone = reports.send(path.clone());
        }
        self.is_looking.store(false, Ordering::Relaxed);
    }
}

impl From<Over> for ReadError {
    fn from(over: Over) -> Self {
        match over {
            Over::Late(limit) => Self::TooLong(limit),
            Over::Abandoned => Self::Abandoned,
        }
    }
}

/// A segment and its version. `None` when the writer is only just making the file, or retention has
/// removed it.
pub(super) fn open_file(path: &Path) -> Result<Option<(Connection, usize)>, ReadError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match Connection::open_with_flags(path, flags) {
        Ok(conn) => conn,
        Err(_) if !path.exists() => return Ok(None),
        Err(error) => return Err(read(path)(error)),
    };
    conn.busy_timeout(BUSY).map_err(read(path))?;
    let begun = Instant::now();
    let version = loop {
        match schema::check(&conn) {
            Err(OpenError::Sqlite(error)) if is_between(&error) && begun.elapsed() < BETWEEN => {
                thread::sleep(BETWEEN / 50);
            }
            checked => break checked,
        }
    };
    let version = version.map_err(|source| match source {
        OpenError::Sqlite(error) => read(path)(error),
        source => ReadError::Segment { path: path.to_owned(), source },
    })?;
    Ok((version > 0).then_some((conn, version)))
}

/// Whether somebody who may write begins or ends his use of the file's log right now: who only reads
/// cannot, and SQLite does not let him wait.
fn is_between(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(
            ffi::SQLITE_READONLY_RECOVERY
                | ffi::SQLITE_READONLY_CANTLOCK
                | ffi::SQLITE_READONLY_CANTINIT
        )
    )
}

/// Unix milliseconds at which the day of a segment begins.
fn start_of(day: &str) -> Option<i64> {
    let date: jiff::civil::Date = day.parse().ok()?;
    let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(start.timestamp().as_millisecond())
}

/// Whether a segment is of a day that was over so long before that no flow of that time has a record
/// there: a day longer, since clocks are set back.
fn is_long_before(path: &Path, time_ms: i64) -> bool {
    let day = path.file_stem().and_then(|day| start_of(day.to_str()?));
    day.is_some_and(|start_ms| start_ms.saturating_add(2 * DAY_MS) <= time_ms)
}

fn is_damaged(path: &Path) -> bool {
    let check = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.busy_timeout(BUSY)?;
        let said = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
        chunks::check(&conn)?;
        Ok(said)
    };
    match check() {
        Ok(said) => said != "ok",
        Err(error) => failure::is_damage(&error),
    }
}

pub(super) fn read(path: &Path) -> impl Fn(rusqlite::Error) -> ReadError {
    let path = path.to_owned();
    move |source| {
        let path = path.clone();
        if failure::is_damage(&source) {
            ReadError::Damaged { path, source }
        } else {
            ReadError::Sqlite { path, source }
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
pub(super) mod tests;
