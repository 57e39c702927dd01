//! The drain thread: owns the kernel's tables, the ledger and the store's writer.
//!
//! Between two drains it answers questions.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    audit::Teller,
    config::Config,
    dataplane::{Dataplane, Pins},
    flows::EndReason,
    identity::Names,
    live::{Durations, Request},
    store::Sums,
    wire, wireguard,
};

use super::{
    DaemonError,
    answers::TOGETHER,
    coverage::window_of,
    drain::Due,
    gaps::Gaps,
    interfaces::Interfaces,
    lapses::FullTable,
    ledger::Ledger,
    meter::Meter,
    overflow::OverflowLedger,
    peers::{Ownership, Peers},
    pulse::{Pulse, Reading},
    recorder::Recorder,
    revisions::Revisions,
    sessions::{Closing, Sessions},
    takeover::Inheritance,
    verdicts::{Revision, Verdicts},
};

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
    pub(super) durations: Durations,
    pub(super) gaps: Gaps,
    pub(super) pulse: Pulse,
    pub(super) full_table: FullTable,
    pub(super) started_ms: i64,
    pub(super) sessions: Sessions,
    pub(super) meter: Meter,
    /// The window that the books of peers are in.
    pub(super) window: i64,
    pub(super) ownership: Ownership,
    pub(super) drain_failing: bool,
    /// What of days that are over cannot be done, and since when.
    pub(super) keeper_error: Option<(String, i64)>,
    /// Where it is told what is done.
    pub(super) teller: Teller,
    /// Whether the last drain has left something for the next one.
    pub(super) is_behind: bool,
    /// Whether the kernel has not been told yet of the peers as they are.
    pub(super) is_outdated: bool,
    /// Whether everything has been looked at that a daemon before, or a drain that failed, left.
    pub(super) has_walked: bool,
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
            durations: Durations::default(),
            gaps: Gaps::default(),
            pulse,
            full_table: FullTable::default(),
            started_ms: now_ms(),
            sessions: Sessions::new(),
            meter: Meter::default(),
            window: window_of(now_ms()),
            ownership: Ownership::Same,
            drain_failing: false,
            keeper_error: None,
            teller: Teller::default(),
            is_behind: false,
            is_outdated: false,
            has_walked: false,
        }
    }

    /// Whatever happens from here on is told there.
    pub(super) fn tell_to(&mut self, teller: &Teller) {
        let Self { interfaces, gaps, peers, sessions, teller: own, .. } = self;
        interfaces.teller = teller.clone();
        gaps.teller = teller.clone();
        peers.teller = teller.clone();
        sessions.teller = teller.clone();
        *own = teller.clone();
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

    fn hear_of_keeper(&mut self, error: Option<String>) {
        let since_ms = self.keeper_error.take().map_or_else(now_ms, |(_, since_ms)| since_ms);
        self.keeper_error = error.map(|error| (error, since_ms));
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
                Ok(Request::Kept(error)) => self.hear_of_keeper(error),
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
                #[cfg(feature = "failpoints")]
                crate::failpoint::stalls();
                self.drain(Due::AtTimeout);
                self.keep_peer_news(Closing::Regular);
                self.peers.tell_strangers();
                self.meter.rest(Instant::now());
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
}

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    #[cfg(feature = "failpoints")]
    let now_ms = now_ms + crate::failpoint::clock_offset_ms();
    now_ms
}
