//! The drain thread: owns the kernel's tables, the ledger and the store's writer.
//!
//! Between two drains it answers questions. A drain
//! - walks the flow table and writes a record of every flow that is due
//! - retires the flows that have ended, reads their final counts, records them, then deletes them
//! - writes a record of every overflow bucket that grew

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flowd_common::{
    flow::FlowKey,
    limits::RETIRE_BATCH,
    peer::{NO_PEER, PeerId},
};

use crate::{
    config::Config,
    dataplane::{Dataplane, DataplaneError, Pins, TimeLine, Why},
    flows::{Counters, EndReason, Record, Timeouts},
    identity::Names,
    live::Request,
    store::{Leaving, Sums},
    wire, wireguard,
};

use super::{
    DaemonError,
    answers::TOGETHER,
    coverage::{Walk, add_dropped, window_of},
    gaps::Gaps,
    interfaces::Interfaces,
    lapses::FullTable,
    ledger::{Ledger, Open, View, total},
    overflow::{OverflowLedger, by_bucket},
    peers::{Ownership, Peers},
    pulse::{Pulse, Reading},
    recorder::{BATCH, NotRecorded, Recorder},
    revisions::Revisions,
    sessions::{Closing, Sessions},
    takeover::{Inheritance, add},
    verdicts::{Revision, Verdicts},
};

/// Ended flows that one pass takes from the table: 3 MiB of keys.
const MAX_ENDING: usize = 65_536;
/// How long a pass writes records of living flows, and then of ended ones, before questions have
/// their turn.
const PASS: Duration = Duration::from_millis(500);
/// How often a walk of the first tenth of a second tries again for the clock's rate.
const CLOCK_RETRY: Duration = Duration::from_millis(10);

/// The drain thread's state.
pub(super) struct Collector {
    pub(super) config: Config,
    pub(super) dataplane: Dataplane,
    pub(super) recorder: Recorder,
    pub(super) ledger: Ledger,
    pub(super) overflow: OverflowLedger,
    pub(super) peers: Peers,
    pub(super) interfaces: Interfaces,
    /// What flows did that have left the kernel's tables, since these were made.
    pub(super) finished: Sums,
    /// What is left to do of a take-over.
    pub(super) inheritance: Inheritance,
    pub(super) verdicts: Verdicts,
    pub(super) revisions: Revisions,
    pub(super) drains: wire::DrainStatus,
    pub(super) gaps: Gaps,
    pub(super) pulse: Pulse,
    pub(super) full_table: FullTable,
    pub(super) started_ms: i64,
    pub(super) sessions: Sessions,
    /// The window that the books of peers are in.
    pub(super) window: i64,
    ownership: Ownership,
    drain_failing: bool,
    /// Whether the last drain has left something for the next one.
    is_behind: bool,
    /// Whether the kernel has not been told yet of the peers as they are.
    pub(super) is_outdated: bool,
    /// Whether everything has been looked at that a daemon before, or a drain that failed, left.
    pub(super) has_walked: bool,
}

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
    pub(super) fn new(
        config: Config,
        dataplane: Dataplane,
        recorder: Recorder,
        names: Names,
        revisions: Revisions,
        policy: Arc<Revision>,
        pins: Option<Pins>,
    ) -> Self {
        let pulse = Pulse::new(config.drain_interval, Reading::now());
        Self {
            config,
            dataplane,
            recorder,
            ledger: Ledger::default(),
            overflow: OverflowLedger::default(),
            peers: Peers::new(names),
            interfaces: Interfaces::new(pins),
            finished: Sums::default(),
            inheritance: Inheritance::default(),
            verdicts: Verdicts::of(policy),
            revisions,
            drains: wire::DrainStatus::default(),
            gaps: Gaps::default(),
            pulse,
            full_table: FullTable::default(),
            started_ms: now_ms(),
            sessions: Sessions::new(),
            window: window_of(now_ms()),
            ownership: Ownership::Same,
            drain_failing: false,
            is_behind: false,
            is_outdated: false,
            has_walked: false,
        }
    }

    /// Takes what WireGuard says now. Peers first: a flow finds its peer from its first packet on.
    pub(super) fn update(&mut self, found: Vec<wireguard::Interface>, gateway: BTreeSet<IpAddr>) {
        self.interfaces.look(now_ms(), &mut self.dataplane, &mut self.gaps);
        if self.interfaces.are_configured_as(&found) && self.peers.has_gateway(&gateway) {
            self.look_at_peers(&found);
            self.interfaces.refresh(found);
            return;
        }
        if self.peers.update(&found, gateway) == Ownership::Changed {
            self.ownership = Ownership::Changed;
        }
        self.look_at_peers(&found);
        self.follow_the_world();
        self.interfaces.update(found, now_ms(), &mut self.dataplane, &mut self.gaps);
    }

    /// Drains and answers until it is told to stop; `beat` is called after every drain.
    pub(super) fn run(mut self, inbox: &Receiver<Request>, beat: impl Fn()) {
        // However long the start took, nothing is late yet.
        self.pulse = Pulse::new(self.config.drain_interval, Reading::now());
        let mut next_drain = Instant::now() + self.config.drain_interval;
        // What has been taken from the inbox and not looked at.
        let mut next: Option<Request> = None;
        loop {
            let left = next_drain.saturating_duration_since(Instant::now());
            let message = next.take().map_or_else(|| inbox.recv_timeout(left), Ok);
            let is_news = message.as_ref().is_ok_and(Request::is_news);
            match message {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Request::Interfaces { found, gateway }) => self.update(found, gateway),
                Ok(Request::Names(names)) => self.rename(names),
                Ok(Request::PolicyFile(text)) => drop(self.take_policy_file(&text)),
                Ok(question) => {
                    let mut questions = vec![question];
                    while questions.len() < TOGETHER && next.is_none() {
                        match inbox.try_recv() {
                            Ok(news) if news.is_news() => next = Some(news),
                            Ok(question) => questions.push(question),
                            Err(_) => break,
                        }
                    }
                    self.answer(questions);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            // News does not make a question behind it wait for one more pass.
            if is_news && next.is_none() {
                next = inbox.try_recv().ok();
                if next.is_some() {
                    continue;
                }
            }
            if Instant::now() >= next_drain {
                self.drain(Due::AtTimeout);
                self.keep_peer_news(Closing::Regular);
                self.peers.tell_strangers();
                // What one pass has left is taken up at once, after whoever asks meanwhile.
                next_drain = match self.is_behind {
                    true => Instant::now(),
                    false => Instant::now() + self.config.drain_interval,
                };
                beat();
            }
        }
        self.stop();
    }

    /// Takes new names; a rule may mean other peers now.
    fn rename(&mut self, names: Names) {
        self.peers.rename(names);
        self.follow_the_world();
    }

    /// Drains for the last time. Where the programs stay, they count on for the next daemon; else
    /// they are taken off, and every flow ends.
    fn stop(mut self) {
        self.interfaces.read_devices();
        self.interfaces.look(now_ms(), &mut self.dataplane, &mut self.gaps);
        if self.interfaces.are_staying() {
            self.drain(Due::AtStop);
            self.interfaces.leave_all();
            self.finish();
        } else {
            self.detach();
        }
    }

    /// Takes the programs off, drains for the last time and ends every flow.
    fn detach(mut self) {
        self.take_off();
        self.finish();
    }

    /// The same, unless the store takes nothing; how many programs there were. What is not recorded on
    /// an error is in the kernel's tables still.
    pub(super) fn record_and_detach(mut self) -> Result<usize, DaemonError> {
        let unrecorded = |recorder: &Recorder| {
            let trouble = recorder.error.as_ref();
            trouble.map(|trouble| DaemonError::NotRecorded(trouble.text.clone()))
        };
        // The recorder remembers what is wrong.
        let _tried = self.recorder.beat(now_ms(), false);
        if let Some(error) = unrecorded(&self.recorder) {
            return Err(error);
        }
        let programs = self.take_off();
        let failed = self.drain_failing.then(|| {
            DaemonError::NotRecorded("the kernel's tables cannot be read or changed".to_owned())
        });
        let failed = unrecorded(&self.recorder).or(failed);
        self.finish();
        failed.map_or(Ok(programs), Err)
    }

    fn take_off(&mut self) -> usize {
        self.interfaces.read_devices();
        let programs = self.interfaces.detach_all();
        self.drain(Due::Ending(EndReason::Shutdown));
        programs
    }

    fn finish(mut self) {
        self.keep_peer_news(Closing::Last);
        self.end_gaps();
        if self.recorder.error.is_some() {
            tracing::error!("open flows could not be recorded before the stop");
        } else {
            // Told by the recorder.
            let _unclean = self.recorder.beat(now_ms(), true);
        }
        tracing::info!(
            records = self.recorder.written,
            last_record_id = self.recorder.last_record_id(),
            "stopped"
        );
        self.recorder.close();
    }

    fn drain(&mut self, due: Due) {
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

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    #[cfg(feature = "failpoints")]
    let now_ms = now_ms + crate::failpoint::clock_offset_ms();
    now_ms
}
