//! One drain
//! - walks the flow table and writes a record of every flow that is due
//! - retires the flows that have ended, reads their final counts, records them, then deletes them
//! - writes a record of every overflow bucket that grew

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use flowd_common::{
    flow::FlowKey,
    limits::RETIRE_BATCH,
    peer::{NO_PEER, PeerId},
};

use crate::{
    config::Config,
    dataplane::{DataplaneError, TimeLine, Why},
    flows::{Counters, EndReason, Record, Timeouts},
    store::{Leaving, Sums},
    wire,
};

use super::{
    collector::{Collector, now_ms},
    coverage::{Walk, add_dropped},
    ledger::{Ledger, Open, View, total},
    overflow::by_bucket,
    peers::Ownership,
    recorder::{BATCH, NotRecorded, Recorder},
    settling::add,
};

/// Ended flows that one pass takes from the table: 3 MiB of keys.
const MAX_ENDING: usize = 65_536;
/// How long a pass writes records of living flows, and then of ended ones, before questions have
/// their turn.
const PASS: Duration = Duration::from_millis(500);
/// How often a walk of the first tenth of a second tries again for the clock's rate.
const CLOCK_RETRY: Duration = Duration::from_millis(10);

/// What a pass sees besides what it records.
struct Looked<'a> {
    owners: &'a mut HashSet<PeerId>,
    /// For the books of peers, in the first pass of a drain.
    walk: Option<&'a mut Walk>,
}

/// Whether a flow is due for a record although it lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// When its last one is an active timeout ago.
    AtTimeout,
    /// Now: flowd stops, and another one goes on.
    AtStop,
    /// Now, and it ends: flowd stops, and nothing counts after it.
    Ending(EndReason),
}

impl Collector {
    pub(super) fn drain(&mut self, due: Due) {
        let begun = Instant::now();
        self.heed_the_clocks();
        match self.try_drain(due) {
            Ok(()) => self.drain_failing = false,
            Err(error) => {
                if !self.drain_failing {
                    tracing::error!(%error, "drain failed; the kernel keeps counting, and flowd tries again");
                }
                self.drain_failing = true;
            }
        }
        self.heed_the_store();
        let took = begun.elapsed();
        self.drains.count += 1;
        self.durations.observe(took);
        self.drains.last = Some(wire::Timestamp(now_ms()));
        self.drains.last_duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.drains.records = self.recorder.written;
        tracing::debug!(
            remembered = self.ledger.len(),
            records = self.recorder.written,
            took_us = self.drains.last_duration_us,
            "drained"
        );
    }

    fn try_drain(&mut self, due: Due) -> Result<(), DataplaneError> {
        self.dataplane.flush_log();
        let failures = self.recorder.failures;
        if self.recorder.wants_ledger() {
            self.begin_anew()?;
        }
        if self.is_outdated {
            self.follow_the_world();
        }
        self.interfaces.read_devices();
        self.interfaces.look(now_ms(), &mut self.dataplane, &mut self.gaps);
        let ownership = std::mem::replace(&mut self.ownership, Ownership::Same);
        let mut walk = Some(self.begin_walk());
        let mut owners = HashSet::new();
        loop {
            let line = self.time_line()?;
            self.is_behind = false;
            let mut looked = Looked { owners: &mut owners, walk: walk.as_mut() };
            let ending = self.record_due(&line, due, ownership, &mut looked)?;
            if let Some(walk) = walk.take() {
                self.end_walk(walk)?;
            }
            self.is_behind |= ending.len() >= MAX_ENDING;
            // What the store does not take is tried again at the next drain.
            self.is_behind &= self.end(&line, ending)? && self.recorder.error.is_none();
            // A pass with a change of owners is whole, and so is the last one.
            if !self.is_behind || (due == Due::AtTimeout && ownership == Ownership::Same) {
                break;
            }
        }
        self.record_overflow(due)?;
        self.settle()?;
        self.heed_the_table()?;
        if ownership == Ownership::Changed {
            self.peers.forget(&owners, self.dataplane.notebook())?;
        }
        if self.recorder.error.is_none() && !self.is_behind && !self.has_walked {
            self.interfaces.forget_notes(&mut self.dataplane)?;
            self.recorder.forget_ended();
            self.has_walked = true;
        }
        self.interfaces.note(&mut self.dataplane)?;
        // A store that takes this may have no room for the records that it has just refused.
        if self.recorder.failures == failures {
            // Told by the recorder.
            let _unheard = self.recorder.beat(now_ms(), false);
        }
        Ok(())
    }

    /// Relates the kernel's clocks to the wall clock. Waits in the first tenth of a second, when
    /// their rate is not known yet.
    pub(super) fn time_line(&mut self) -> Result<TimeLine, DataplaneError> {
        loop {
            if let Some(line) = self.dataplane.time_line(now_ms())? {
                if let Some((place, anchor)) = self.ledger.anchors.outdated(&line) {
                    self.dataplane.notebook().anchor(place, &anchor)?;
                    self.ledger.anchors.note(place, anchor);
                }
                return Ok(line);
            }
            std::thread::sleep(CLOCK_RETRY);
        }
    }

    /// Walks the table, records the living flows that are due, and returns those that have ended.
    /// Where ownership has changed, `owners` takes the peers that flows belong to.
    fn record_due(
        &mut self,
        line: &TimeLine,
        due: Due,
        ownership: Ownership,
        looked: &mut Looked<'_>,
    ) -> Result<Vec<(FlowKey, EndReason)>, DataplaneError> {
        let Self { config, dataplane, recorder, ledger, peers, interfaces, verdicts, .. } = self;
        let timeouts = timeouts(config);
        let active_ms = millis(config.active_timeout);
        let view = View { line: *line, peers, interfaces, verdicts };
        let mut oldest = u32::MAX;
        let mut ending = Vec::new();
        let mut batch = Batch::default();
        let mut failed = false;
        let begun = Instant::now();
        let mut is_late = false;
        let mut is_behind = false;
        dataplane.for_each_flow(|key, value| {
            oldest = oldest.min(value.judgement.epoch());
            let mut open = ledger.open(key, value, peers);
            if ownership == Ownership::Changed {
                if interfaces.is_attached(key.ifindex) && open.ending.is_none() {
                    open.ending = view.reassess(key, &mut open);
                    if open.ending.is_some() {
                        ledger.keep(key, open);
                    }
                }
                looked.owners.insert(open.peer);
            }
            // The kernel does not know whose it is, and later the address may be somebody else's.
            if value.peer_id == NO_PEER && open.peer != NO_PEER {
                ledger.keep(key, open);
            }
            if let Some(walk) = looked.walk.as_mut().filter(|_| !open.is_closed) {
                walk.absorb(open.peer, value);
            }
            let end = match due {
                Due::AtTimeout | Due::AtStop => view.end(key, value, &open, &timeouts),
                Due::Ending(reason) => Some(open.ending.unwrap_or(reason)),
            };
            if let Some(end) = end {
                if ending.len() < MAX_ENDING {
                    ending.push((*key, end));
                }
                return;
            }
            // A clock that was set back makes it due too, instead of waiting to catch up.
            let is_due =
                due == Due::AtStop || (line.wall_ms() - open.window_start_ms).abs() >= active_ms;
            if !failed && is_due && total(value) != open.recorded {
                if is_late {
                    is_behind = true;
                    return;
                }
                batch.push(*key, open, view.record(key, value, &open, None));
                if batch.records.len() == BATCH {
                    failed = batch.commit(line.wall_ms(), recorder, ledger).is_err();
                    is_late = due == Due::AtTimeout && begun.elapsed() > PASS;
                }
            }
        })?;
        if !failed {
            // Told by the recorder; what is not recorded stays in the ledger as it was.
            let _kept_in_kernel = batch.commit(line.wall_ms(), recorder, ledger);
        }
        self.is_behind |= is_behind;
        failpoint!("living-recorded");
        if !failed && due == Due::AtTimeout {
            self.verdicts.forget(oldest, self.dataplane.notebook())?;
        }
        Ok(ending)
    }

    /// Takes ended flows out of the table. Whether the store took all their last records; if not,
    /// they stay retired and are tried again.
    pub(super) fn end(
        &mut self,
        line: &TimeLine,
        mut ending: Vec<(FlowKey, EndReason)>,
    ) -> Result<bool, DataplaneError> {
        let is_cut = |(_, end): &(FlowKey, EndReason)| *end == EndReason::Policy;
        ending.sort_unstable_by_key(|ending| !is_cut(ending));
        let (cut, ended) = ending.split_at(ending.partition_point(is_cut));
        let cut: Vec<FlowKey> = cut.iter().map(|(key, _)| *key).collect();
        if !cut.is_empty() && self.cut(line, &cut)?.is_none() {
            return Ok(false);
        }
        let Self { dataplane, recorder, ledger, peers, interfaces, finished, verdicts, .. } = self;
        let view = View { line: *line, peers, interfaces, verdicts };
        let (sessions, has_walked) = (&mut self.sessions, &mut self.has_walked);
        let begun = Instant::now();
        for ended in ended.chunks(RETIRE_BATCH as usize) {
            let keys: Vec<FlowKey> = ended.iter().map(|(key, _)| *key).collect();
            let mut reasons = ended.iter();
            let mut records = Vec::with_capacity(keys.len());
            let mut last = Vec::with_capacity(keys.len());
            let mut ids = Vec::with_capacity(keys.len());
            let (mut leaving, mut dropped) = (Leaving::default(), Sums::default());
            failpoint!("before-retiring");
            dataplane.retire(&keys, Why::Ended, |key, value| {
                let open = ledger.open(key, value, peers);
                if open.is_closed {
                    return;
                }
                // They are shown in their order, unless one has gone.
                let reason = reasons.find(|(ending, _)| ending == key).map(|(_, reason)| *reason);
                let record = view.record(key, value, &open, reason.or(Some(EndReason::Idle)));
                ids.push((record.tuple, record.entry));
                last.push((*key, Open { ending: reason, ..open }, open.closed(&record)));
                *leaving.sums.entry((key.ifindex, open.peer)).or_default() += record.total;
                add_dropped(&mut dropped, (key.ifindex, open.peer), &record);
                // What a cut left behind, and no packet followed.
                if record.total != Counters::default() {
                    records.push(record);
                }
            })?;
            failpoint!("retired");
            if recorder.record_last(line.wall_ms(), records, &leaving).is_err() {
                // Retired, they still have the reason.
                last.into_iter().for_each(|(key, open, _)| ledger.keep(&key, open));
                return Ok(false);
            }
            failpoint!("ended-recorded");
            // From here on nothing of them is unrecorded, even if the table keeps them for now.
            last.into_iter().for_each(|(key, _, closed)| ledger.keep(&key, closed));
            add(finished, &leaving.sums);
            add(&mut sessions.dropped, &dropped);
            let deleted = dataplane.delete(&keys, |key| ledger.close(key));
            if deleted.is_err() {
                // The next daemon must know of them too, until a drain has come through.
                recorder.keep_ended(&ids);
                *has_walked = false;
            }
            deleted?;
            failpoint!("ended-deleted");
            if begun.elapsed() > PASS {
                self.is_behind = true;
                break;
            }
        }
        Ok(true)
    }

    fn record_overflow(&mut self, due: Due) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let Self { config, dataplane, recorder, overflow, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        let active_ms = millis(config.active_timeout);
        let buckets = by_bucket(&dataplane.overflow()?);
        let mut pending = overflow.pending(&buckets, &view);
        pending.retain(|(bucket, _)| {
            due != Due::AtTimeout || overflow.is_due(bucket, line.wall_ms(), active_ms)
        });
        let records = pending.iter().map(|(_, record)| record.clone()).collect();
        if recorder.record(line.wall_ms(), records).is_ok() {
            for (bucket, record) in &pending {
                overflow.recorded(bucket, record);
            }
            if !pending.is_empty() {
                failpoint!("overflow-recorded");
            }
        }
        Ok(())
    }
}

/// Records of living flows that wait for their transaction.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    /// The flows when it is done.
    recorded: Vec<(FlowKey, Open)>,
}

impl Batch {
    fn push(&mut self, key: FlowKey, open: Open, record: Record) {
        self.recorded.push((key, open.recorded(&record)));
        self.records.push(record);
    }

    fn commit(
        &mut self,
        now_ms: i64,
        recorder: &mut Recorder,
        ledger: &mut Ledger,
    ) -> Result<(), NotRecorded> {
        let Self { records, recorded } = std::mem::take(self);
        recorder.record(now_ms, records)?;
        recorded.into_iter().for_each(|(key, open)| ledger.keep(&key, open));
        Ok(())
    }
}

fn timeouts(config: &Config) -> Timeouts {
    let Config { tcp_idle_timeout, idle_timeout, linger, .. } = config;
    Timeouts { tcp_idle: *tcp_idle_timeout, idle: *idle_timeout, linger: *linger }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
