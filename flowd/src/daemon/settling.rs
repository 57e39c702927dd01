//! The end of a take-over: what tables counted that are gone on with no more.

use std::{collections::HashMap, ops::ControlFlow};

use flowd_common::{
    counter::Counter,
    flow::{FlowKey, FlowValue},
    peer::NO_PEER,
};

use super::{
    anchors::Anchors,
    collector::{Collector, now_ms},
    ledger::{Open, View, entry, tuple},
    overflow::{self, OpenBucket, by_bucket},
    peers::Peers,
    recorder::BATCH,
    takeover::{Inheritance, Row},
};
use crate::{
    dataplane::{DataplaneError, OldTables},
    flows::{Counters, EndReason, Record},
    store::{EntryId, Leaving, Sums},
};

impl Collector {
    /// Records what the old programs counted and removes their tables, then ends what is in none of
    /// the kernel's tables; what the store does not take yet is tried again at the next drain.
    pub(super) fn settle(&mut self) -> Result<(), DataplaneError> {
        while !self.inheritance.old.is_empty() {
            self.dataplane.wait_for_classifiers()?;
            if !self.settle_oldest()? {
                return Ok(());
            }
            remove(self.inheritance.old.remove(0));
        }
        self.end_lost();
        Ok(())
    }

    fn settle_oldest(&mut self) -> Result<bool, DataplaneError> {
        let line = self.time_line()?;
        let Self {
            dataplane,
            recorder,
            ledger,
            peers,
            interfaces,
            verdicts,
            finished,
            inheritance,
            ..
        } = self;
        let Inheritance { rows, ended, old, tables, lost: _ } = inheritance;
        let next = old.get(1).map_or_else(|| tables.clone(), |next| Some(next.name()));
        let (old, later) = old.split_first_mut().expect("there is one to settle");
        let view = View { line, peers, interfaces, verdicts };
        let mut keys = Vec::new();
        old.flows.for_each(|key, _| keys.push(*key))?;
        for keys in keys.chunks(BATCH) {
            let mut records = Vec::new();
            let mut sums = Sums::default();
            for key in keys {
                let Some(value) = old.flows.get(key)? else { continue };
                if ended.contains(&(tuple(key), entry(key, &value))) {
                    continue;
                }
                let mut open = was_open(key, &value, rows, &ledger.anchors, peers);
                // Flows are named by the millisecond: one that went on in later tables in the same one
                // is another. Each tables' own distance keeps them apart.
                let next = FlowKey { generation: 0, ..*key };
                let mut went_on = vec![dataplane.flow(&next)?];
                for later in later.iter_mut() {
                    went_on.push(later.flows.get(&next)?);
                }
                let is_same = |next: &FlowValue| {
                    ledger.anchors.first_seen_ms(next.first_seen_ns) == open.first_seen_ms
                };
                if open.recorded == Counters::default() && went_on.iter().flatten().any(is_same) {
                    open.first_seen_ms -= went_on.len() as i64;
                    open.window_start_ms = open.first_seen_ms;
                }
                let record = view.record(key, &value, &open, Some(EndReason::Shutdown));
                *sums.entry((key.ifindex, open.peer)).or_default() += record.total;
                if record.total != Counters::default() {
                    records.push(record);
                }
            }
            let leaving = Leaving { sums, tables: None };
            if recorder.record_last(line.wall_ms(), records, &leaving).is_err() {
                return Ok(false);
            }
            failpoint!("old-flows-recorded");
            add(finished, &leaving.sums);
            for key in keys {
                old.flows.delete(key)?;
            }
            failpoint!("old-flows-deleted");
        }
        let mut tallies = Vec::new();
        old.overflow.for_each(|key, tally| tallies.push((*key, *tally)))?;
        let mut records = Vec::new();
        let mut sums = Sums::default();
        for (bucket, total) in by_bucket(&tallies) {
            let row = rows.remove(&bucket.id(old.number()));
            let open = row.map_or(OpenBucket::begun(line.wall_ms()), OpenBucket::from);
            let record = overflow::record(&bucket, old.number(), &open, total, &view);
            records.push(Record { end_reason: Some(EndReason::Shutdown), ..record });
            *sums.entry((bucket.ifindex, NO_PEER)).or_default() += total;
        }
        old.counters.for_each(|key, tally| {
            if Counter::UNCOUNTED.iter().any(|counter| *counter as u8 == key.counter) {
                let sum = sums.entry((key.ifindex, NO_PEER)).or_default();
                *sum += overflow::one_way(key.direction, tally);
            }
        })?;
        let leaving = Leaving { sums, tables: next };
        if recorder.record_last(line.wall_ms(), records, &leaving).is_err() {
            return Ok(false);
        }
        failpoint!("old-tables-recorded");
        add(finished, &leaving.sums);
        Ok(true)
    }

    /// Ends the flows that only the ledger knows of.
    fn end_lost(&mut self) {
        let Inheritance { rows, lost: Some(reason), .. } = &self.inheritance else { return };
        let mut count = 0;
        while !rows.is_empty() {
            let mut lost = Vec::new();
            let read = self.recorder.for_each_open(|mut record| {
                if rows.contains_key(&(record.tuple, record.entry)) {
                    record.end_reason = Some(*reason);
                    lost.push(record);
                }
                if lost.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(error) = read {
                // A store that cannot be read cannot be written either, which is told.
                tracing::debug!(%error, "flows that are lost end later");
                return;
            }
            if lost.is_empty() {
                break;
            }
            let ended = lost.len();
            // Told by the recorder.
            if self.recorder.record(now_ms(), lost).is_err() {
                return;
            }
            count += ended;
        }
        if count > 0 {
            tracing::warn!(
                flows = count,
                reason = reason.word(),
                "flows that were open have ended with the kernel's tables"
            );
        }
        self.inheritance = Inheritance::default();
    }
}

pub(super) fn remove(old: OldTables) {
    if let Err(error) = old.remove() {
        tracing::warn!(%error, "drained tables stay where they are");
    }
}

/// Adds what flows did that have left the tables.
pub(super) fn add(finished: &mut Sums, sums: &Sums) {
    for (place, counters) in sums {
        *finished.entry(*place).or_default() += *counters;
    }
}

/// A flow of old tables, as the ledger has it.
fn was_open(
    key: &FlowKey,
    value: &FlowValue,
    rows: &mut HashMap<EntryId, Row>,
    anchors: &Anchors,
    peers: &Peers,
) -> Open {
    let row = rows.remove(&(tuple(key), entry(key, value))).unwrap_or_else(|| {
        let first_seen_ms = anchors.first_seen_ms(value.first_seen_ns);
        Row { first_seen_ms, window_end_ms: first_seen_ms, recorded: Counters::default() }
    });
    Open {
        first_seen_ms: row.first_seen_ms,
        window_start_ms: row.window_end_ms,
        recorded: row.recorded,
        peer: if value.peer_id == NO_PEER {
            peers.owner(key.ifindex, key.peer.into())
        } else {
            value.peer_id
        },
        ending: None,
        is_closed: false,
    }
}
