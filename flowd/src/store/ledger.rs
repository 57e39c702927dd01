//! Which flows were open at the instant that a query answers for.
//!
//! The ledger itself is as it is now: what has a record behind the watermark was open then.

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, RangeInclusive},
    path::PathBuf,
};

use rusqlite::{OptionalExtension as _, config::DbConfig};

use super::{ReadError, Reader, leash::Leash, segment::record_ids, view::Segment};
use crate::{
    flows::{Filter, Record, State},
    live::Position,
};

/// Stretches of time in which open flows began that are told apart at most.
const STRETCHES: usize = 16;

/// Says of a record whether its flow is open.
pub(super) struct Ledger {
    segment: Segment,
    path: PathBuf,
    /// Flows with records behind the watermark: those were open, whatever they are now.
    later: BTreeSet<Position>,
    /// When all these flows were first seen, ascending, each time once; `None`: not read.
    first_seen_ms: Option<Vec<i64>>,
    wanted: State,
}

impl Ledger {
    pub(super) fn wants(&mut self, record: &Record) -> bool {
        self.has(record) == (self.wanted == State::Open)
    }

    /// A ledger that cannot be read has nothing: the query itself then fails on the same file.
    pub(super) fn has(&mut self, record: &Record) -> bool {
        let first_seen_ms = self.first_seen_ms.as_ref();
        if first_seen_ms.is_some_and(|all| all.binary_search(&record.first_seen_ms).is_err()) {
            return false;
        }
        let has_later = || !self.later.is_empty() && self.later.contains(&Position::of(record));
        !record.overflow && (has_later() || self.look_up(record).unwrap_or(false))
    }

    /// Reads when its flows were first seen, which says of most others that they are not open.
    fn read_times(&mut self) -> rusqlite::Result<()> {
        let mut query = self.segment.conn.prepare("SELECT first_seen FROM open_flow")?;
        let mut times = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        times.extend(self.later.iter().map(|position| position.first_seen_ms));
        times.sort_unstable();
        times.dedup();
        self.first_seen_ms = Some(times);
        Ok(())
    }

    /// When the flows that the filter wants began, as a few stretches of time; `None`: at any time.
    pub(super) fn stretches(&self, filter: &Filter) -> Option<Vec<RangeInclusive<i64>>> {
        let is_wanted = filter.state == Some(State::Open);
        let times = self.first_seen_ms.as_ref().filter(|_| is_wanted)?;
        Some(stretches(times, STRETCHES))
    }

    fn look_up(&self, record: &Record) -> rusqlite::Result<bool> {
        let tuple = &record.tuple;
        self.segment
            .conn
            .prepare_cached(
                "SELECT 1 FROM open_flow JOIN interface USING (interface_id) WHERE first_seen = ? \
                 AND name = ? AND protocol = ? AND peer_addr = ? AND remote_addr = ? \
                 AND peer_port = ? AND remote_port = ?",
            )?
            .query_row(
                (
                    record.first_seen_ms,
                    &*record.interface,
                    tuple.protocol,
                    tuple.peer_addr.octets(),
                    tuple.remote_addr.octets(),
                    tuple.peer_port,
                    tuple.remote_port,
                ),
                |_| Ok(()),
            )
            .optional()
            .map(|found| found.is_some())
    }
}

impl Reader {
    /// The ledger, which the newest segment has, as it was when `watermark` was the last record.
    pub(super) fn open_ledger(&self, watermark: u64) -> Result<Option<Ledger>, ReadError> {
        let mut newest = None;
        let mut later = BTreeSet::new();
        for path in self.paths(&Filter::default())?.into_iter().rev() {
            // Not on the leash: an interrupted look-up would say that a flow is not open.
            let segment = Segment::open(&path, &Leash::default());
            let segment = segment.inspect_err(|error| self.report(error))?;
            let Some(mut segment) = segment else { continue };
            let note = |record: Record| {
                later.insert(Position::of(&record));
                ControlFlow::Continue(())
            };
            let first = segment
                .by_id(&Filter::default(), u64::MAX >> 1, watermark, note)
                .and_then(|()| record_ids(&segment.conn))
                .map_err(self.failed(&path))?
                .map(|(first, _)| first);
            // Or SQLite prepares the look-up anew for each flow, since other values might ask for
            // another plan.
            let plans = segment.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true);
            plans.map_err(self.failed(&path))?;
            newest.get_or_insert((segment, path));
            if first.is_some_and(|first| first <= watermark.saturating_add(1)) {
                break;
            }
        }
        Ok(newest.map(|(segment, path)| Ledger {
            segment,
            path,
            later,
            first_seen_ms: None,
            wanted: State::Open,
        }))
    }

    /// The same for a query that asks of many flows whether they are open.
    pub(super) fn whole_ledger(&self, watermark: u64) -> Result<Option<Ledger>, ReadError> {
        let mut ledger = self.open_ledger(watermark)?;
        if let Some(ledger) = &mut ledger {
            let path = ledger.path.clone();
            ledger.read_times().map_err(self.failed(&path))?;
        }
        Ok(ledger)
    }

    pub(super) fn ledger_for(
        &self,
        state: Option<State>,
        watermark: u64,
    ) -> Result<Option<Ledger>, ReadError> {
        let Some(wanted) = state else { return Ok(None) };
        Ok(self.whole_ledger(watermark)?.map(|ledger| Ledger { wanted, ..ledger }))
    }
}

/// Ascending times as a few stretches, between which lie the longest times without any.
fn stretches(times: &[i64], most: usize) -> Vec<RangeInclusive<i64>> {
    let mut pauses: Vec<(u64, usize)> =
        times.windows(2).map(|pair| pair[0].abs_diff(pair[1])).zip(1..).collect();
    pauses.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
    let mut starts: Vec<usize> =
        pauses.into_iter().take(most.saturating_sub(1)).map(|(_, start)| start).collect();
    starts.sort_unstable();
    let ends = starts.iter().copied().chain([times.len()]);
    let starts = [0].into_iter().chain(starts.iter().copied());
    let parts = starts.zip(ends).filter_map(|(start, end)| times.get(start..end));
    parts.filter_map(|part| Some(*part.first()?..=*part.last()?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::stretches;

    #[test]
    fn the_longest_pauses_part_the_stretches() {
        let times = [1, 2, 10, 11, 50, 90];
        assert_eq!(stretches(&times, 1), [1..=90]);
        assert_eq!(stretches(&times, 3), [1..=11, 50..=50, 90..=90]);
        assert_eq!(stretches(&times, 9), [1..=1, 2..=2, 10..=10, 11..=11, 50..=50, 90..=90]);
        assert_eq!(stretches(&[], 3), []);
        assert_eq!(stretches(&[i64::MIN, i64::MAX], 1), [i64::MIN..=i64::MAX]);
    }

    proptest! {
        #[test]
        fn every_time_is_in_a_stretch(
            times in prop::collection::btree_set(any::<i64>(), 0..40),
            most in 1_usize..20,
        ) {
            let times: Vec<i64> = times.into_iter().collect();
            let stretches = stretches(&times, most);
            prop_assert!(stretches.len() <= most);
            for time in &times {
                prop_assert!(stretches.iter().any(|stretch| stretch.contains(time)));
            }
        }
    }
}
