//! Which flows were open at the instant that a query answers for.
//!
//! The ledger itself is as it is now: what has a record behind the watermark was open then.

use std::{collections::BTreeSet, ops::ControlFlow};

use rusqlite::{OptionalExtension as _, config::DbConfig};

use super::{ReadError, Reader, leash::Leash, segment::record_ids, view::Segment};
use crate::{
    flows::{Filter, Record, State},
    live::Position,
};

/// Says of a record whether its flow is open.
pub(super) struct Ledger {
    segment: Segment,
    /// Flows with records behind the watermark: those were open, whatever they are now.
    later: BTreeSet<Position>,
    wanted: State,
}

impl Ledger {
    pub(super) fn wants(&mut self, record: &Record) -> bool {
        self.has(record) == (self.wanted == State::Open)
    }

    /// A ledger that cannot be read has nothing: the query itself then fails on the same file.
    pub(super) fn has(&mut self, record: &Record) -> bool {
        let has_later = || !self.later.is_empty() && self.later.contains(&Position::of(record));
        !record.overflow && (has_later() || self.look_up(record).unwrap_or(false))
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
            let Some(segment) = segment else { continue };
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
            newest.get_or_insert(segment);
            if first.is_some_and(|first| first <= watermark.saturating_add(1)) {
                break;
            }
        }
        Ok(newest.map(|segment| Ledger { segment, later, wanted: State::Open }))
    }

    pub(super) fn ledger_for(
        &self,
        state: Option<State>,
        watermark: u64,
    ) -> Result<Option<Ledger>, ReadError> {
        let Some(wanted) = state else { return Ok(None) };
        Ok(self.open_ledger(watermark)?.map(|ledger| Ledger { wanted, ..ledger }))
    }
}
