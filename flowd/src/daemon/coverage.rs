//! The books of every peer against WireGuard's own: what each walk over the tables counted, between
//! the look at WireGuard before it and the first one that was begun after it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use flowd_common::{
    counter::Counter,
    flow::FlowValue,
    peer::{NO_PEER, PeerId},
    policy::Outcome,
};

use super::{
    answers::named,
    collector::{Collector, now_ms},
    gaps::{At, Gaps},
    ledger::total,
    overflow::by_bucket,
    sessions::{Alarm, Before, Closing},
};
use crate::{
    dataplane::DataplaneError,
    flows::{
        Bound, Counters, Coverage, Finding, Gap, Interval, Missing, Moment, Observation, Outer,
        Record, Stage,
    },
    store::{PeerState, Sums, Writer},
    wire::{self, Timestamp},
    wireguard,
};

/// How long a window is; they end together, so that they are written together.
const WINDOW_MS: i64 = 15 * 60_000;
/// Walks after which no packet is counted any more for whoever had an address before: the first one
/// finds the flows that are somebody else's now, and they end after it.
const SETTLING_WALKS: u8 = 1;

/// The books of one peer.
#[derive(Default)]
pub(super) struct Audit {
    pub(super) coverage: Coverage,
    /// A walk that waits for WireGuard's counters after it.
    walked: Option<Walked>,
    /// Walks since the peer got the addresses that it has.
    walks: u8,
}

struct Walked {
    ended: Duration,
    /// All but what came after.
    observation: Observation,
}

impl Audit {
    /// Takes WireGuard's counters, as they were then or later.
    pub(super) fn complete(&mut self, outer: Outer, asked: &Moment) -> Option<Finding> {
        let walked = self.walked.take_if(|walked| asked.monotonic >= walked.ended)?;
        self.coverage.observe(Observation {
            at_ms: asked.wall_ms,
            ended: asked.monotonic,
            after: outer,
            ..walked.observation
        })
    }

    /// Ends the window, and judges nothing before flows and peers belong together again.
    pub(super) fn interrupt(&mut self) -> Option<Interval> {
        self.walked = None;
        self.walks = 0;
        self.coverage.interrupt()
    }
}

/// What one walk over the tables counted, by peer.
pub(super) struct Walk {
    began: Duration,
    by_peer: HashMap<PeerId, Counters>,
}

impl Walk {
    /// Adds a flow.
    pub(super) fn absorb(&mut self, peer: PeerId, value: &FlowValue) {
        self.add(peer, total(value), value.judgement.outcome() == Outcome::Dropped);
    }

    fn add(&mut self, peer: PeerId, counters: Counters, is_dropped: bool) {
        if peer != NO_PEER {
            let undelivered = if is_dropped { undelivered(counters) } else { Counters::default() };
            *self.by_peer.entry(peer).or_default() += counters - undelivered;
        }
    }
}

/// What of a flow that is dropped never gets to WireGuard: what is on its way to the peer.
fn undelivered(counters: Counters) -> Counters {
    Counters { rx_packets: 0, rx_bytes: 0, ..counters }
}

/// Notes what never got to WireGuard of a flow that has ended.
pub(super) fn add_dropped(dropped: &mut Sums, place: (u32, PeerId), record: &Record) {
    if record.enforced && record.total.tx_packets > 0 {
        *dropped.entry(place).or_default() += undelivered(record.total);
    }
}

/// The number of the window that an instant lies in.
pub(super) fn window_of(now_ms: i64) -> i64 {
    now_ms.div_euclid(WINDOW_MS)
}

impl Before for Writer {
    fn peer_state(&self, interface: &str, public_key: &str) -> Option<PeerState> {
        let told = Self::peer_state(self, interface, public_key);
        told.inspect_err(|error| tracing::warn!(%error, "a peer is met as a new one")).ok()?
    }

    fn peer_states(&self) -> Vec<PeerState> {
        let told = Self::peer_states(self);
        told.inspect_err(|error| tracing::warn!(%error, "peers are met as new ones"))
            .unwrap_or_default()
    }
}

impl Collector {
    /// Takes what WireGuard says of its peers, once `peers` knows them.
    pub(super) fn look_at_peers(&mut self, found: &[wireguard::Interface]) {
        let Self { sessions, peers, recorder, .. } = self;
        sessions.look(found, peers, recorder.writer());
    }

    /// Begins a walk over the tables.
    pub(super) fn begin_walk(&self) -> Walk {
        let began = self.sessions.since_start(Instant::now());
        let mut by_peer: HashMap<PeerId, Counters> = HashMap::new();
        for (place @ (_, peer), counters) in &self.finished {
            let dropped = self.sessions.dropped.get(place).copied().unwrap_or_default();
            *by_peer.entry(*peer).or_default() += *counters - dropped;
        }
        Walk { began, by_peer }
    }

    /// The flow table has been walked: what else is counted for peers follows.
    pub(super) fn end_walk(&mut self, mut walk: Walk) -> Result<(), DataplaneError> {
        for (bucket, counters) in by_bucket(&self.dataplane.overflow()?) {
            walk.add(bucket.peer, counters, bucket.outcome == Outcome::Dropped as u8);
        }
        let counters = self.dataplane.counters()?;
        let Self { sessions, interfaces, .. } = self;
        let ended = sessions.since_start(Instant::now());
        for (ifindex, known) in &mut sessions.peers {
            if !interfaces.is_attached(*ifindex) {
                continue;
            }
            let mut nobodys = Counters::default();
            for reason in Counter::UNCOUNTED {
                nobodys += named(*ifindex, reason, &counters);
            }
            for tracked in known.values_mut() {
                let audit = &mut tracked.audit;
                if audit.walks < SETTLING_WALKS {
                    audit.walks += 1;
                    continue;
                }
                if audit.walked.is_some() || tracked.asked > walk.began {
                    continue;
                }
                let observation = Observation {
                    began: tracked.asked,
                    before: tracked.outer,
                    flows: walk.by_peer.get(&tracked.id).copied().unwrap_or_default(),
                    nobodys,
                    ..Observation::default()
                };
                audit.walked = Some(Walked { ended, observation });
            }
        }
        Ok(())
    }

    /// Ends windows that are long enough, and stores what is new of peers.
    pub(super) fn keep_peer_news(&mut self, closing: Closing) {
        let now_ms = now_ms();
        let Self { sessions, peers, recorder, gaps, window, .. } = self;
        let current = window_of(now_ms);
        if closing == Closing::Last || *window != current {
            sessions.close_windows(closing, peers);
            *window = current;
        }
        sessions.alarms.drain(..).for_each(|alarm| raise(alarm, gaps));
        if !sessions.news.is_empty() && recorder.put_peer_news(now_ms, &sessions.news).is_ok() {
            sessions.news = crate::store::PeerNews::default();
        }
    }

    /// Ends the gaps that the daemon before found in the books of peers: this one has its own.
    pub(super) fn settle_coverage(&mut self) {
        let coverage = |gap: &&Gap| gap.stage == Stage::Coverage;
        let over: Vec<Gap> = self.gaps.lasting().filter(coverage).cloned().collect();
        for Gap { interface, peer, .. } in &over {
            if let (Some(interface), Some(peer)) = (interface, peer) {
                let at = At::peer(Stage::Coverage, interface, peer);
                self.gaps.close(at, now_ms(), Bound::NOTHING);
            }
        }
    }

    /// What `GET /v1/peers` says beside the counters: since when the peer is there, and its books.
    pub(super) fn told_of(
        &self,
        ifindex: u32,
        public_key: &str,
    ) -> (Option<Timestamp>, Option<wire::Coverage>) {
        let tracked = self.sessions.peers.get(&ifindex).and_then(|known| known.get(public_key));
        let Some(tracked) = tracked else { return (None, None) };
        let coverage = tracked.audit.coverage.total();
        (
            tracked.session.connected_ms.map(Timestamp),
            coverage.map(|interval| wire::Coverage::new(tracked.epoch, &interval)),
        )
    }
}

/// Opens a gap, or ends it.
fn raise(alarm: Alarm, gaps: &mut Gaps) {
    let Alarm { interface, peer, finding } = alarm;
    let at = At::peer(Stage::Coverage, &interface, &peer);
    let bound = |missing: Missing| Bound::of(missing.packets, missing.bytes);
    match finding {
        Finding::Unexplained(Interval { start_ms, balance, .. }, missing) => {
            let over = |off: i64| u64::try_from(off).unwrap_or(0);
            let detail = format!(
                "no flow explains {} bytes that WireGuard received and {} that it sent, or more",
                over(balance.rx_off),
                over(balance.tx_off)
            );
            gaps.open(at, start_ms, detail);
            gaps.grow(at, bound(missing));
        }
        Finding::Balanced { at_ms, missing } => gaps.close(at, at_ms, bound(missing)),
    }
}
