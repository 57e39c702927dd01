//! The peers as WireGuard tells of them, look by look: who came, went and moved, and when its
//! counters started from zero again.
//!
//! - a peer that flowd has not met on this interface, or that was removed: `added`
//! - one that is not in the configuration any more: `removed`
//! - counters that shrank, a handshake that was forgotten, another interface of the same name: `reset`,
//!   and a new epoch
//! - sessions are [`PeerSession`]'s
//!
//! What happens waits here until the store has it, with what the next daemon must know of the peer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use flowd_common::peer::PeerId;
use ipnet::IpNet;

use super::{collector::now_ms, coverage::Audit, peers::Peers};
use crate::{
    audit::{Event, Teller, word},
    flows::{
        Finding, Identity, Interval, Look, Moment, Outer, PeerEvent, PeerEventKind, PeerSession,
    },
    store::{PeerNews, PeerState, StoredEvent, StoredInterval, Sums},
    wireguard::{Interface, Peer},
};

/// What may wait for the store, of each kind; a store that fails for longer loses the oldest.
const MAX_WAITING: usize = 100_000;

/// One peer of one interface, while it is there.
pub(super) struct Tracked {
    pub(super) id: PeerId,
    pub(super) interface: Arc<str>,
    /// How often WireGuard's counters of the peer had started from zero.
    pub(super) epoch: u32,
    pub(super) outer: Outer,
    /// When WireGuard was last asked.
    pub(super) asked: Duration,
    pub(super) session: PeerSession,
    pub(super) audit: Audit,
    allowed_ips: Vec<IpNet>,
    /// The look at which it was last there.
    look: u64,
}

/// Where what the daemon before knew of a peer is.
pub(super) trait Before {
    /// The state of a peer, removed or not.
    fn peer_state(&self, interface: &str, public_key: &str) -> Option<PeerState>;
    /// Everybody who was not removed.
    fn peer_states(&self) -> Vec<PeerState>;
}

/// A peer whose interface is not there.
struct Parked {
    state: PeerState,
    /// The interface; `None`: the daemon before saw it.
    ifindex: Option<u32>,
}

/// What the books of one peer have brought to light.
pub(super) struct Alarm {
    pub(super) interface: Arc<str>,
    pub(super) peer: Arc<Identity>,
    pub(super) finding: Finding,
}

/// Why a peer is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// From its interface.
    Removed,
    /// With its interface.
    With { ifindex: u32 },
}

/// Which windows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Those that are not under suspicion: the next looks tell.
    Regular,
    /// All: there is no next look.
    Last,
}

/// Everybody who is there, and what is new of them.
pub(super) struct Sessions {
    /// By interface, then by key.
    pub(super) peers: HashMap<u32, HashMap<String, Tracked>>,
    /// What waits for the store.
    pub(super) news: PeerNews,
    /// What the gaps must hear of.
    pub(super) alarms: Vec<Alarm>,
    /// What never got to WireGuard of flows that have ended since the start.
    pub(super) dropped: Sums,
    /// Those whose interface is not there, by its name and the key.
    parked: HashMap<(Arc<str>, String), Parked>,
    zero: Instant,
    looks: u64,
    is_losing: bool,
    /// The audit log.
    pub(super) teller: Teller,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            peers: HashMap::new(),
            news: PeerNews::default(),
            alarms: Vec::new(),
            dropped: Sums::default(),
            parked: HashMap::new(),
            zero: Instant::now(),
            looks: 0,
            is_losing: false,
            teller: Teller::default(),
        }
    }

    /// An instant as observations have it.
    pub(super) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.zero)
    }

    /// Takes what WireGuard says now; `peers` knows it already.
    pub(super) fn look(&mut self, found: &[Interface], peers: &Peers, before: &impl Before) {
        self.looks += 1;
        if self.looks == 1 {
            for state in before.peer_states() {
                let at = (state.interface.clone(), state.public_key.clone());
                self.parked.insert(at, Parked { state, ifindex: None });
            }
        }
        let is_found = |ifindex: &u32| found.iter().any(|found| found.ifindex == *ifindex);
        let gone: Vec<_> = self.peers.extract_if(|ifindex, _| !is_found(ifindex)).collect();
        for (ifindex, known) in gone {
            for (public_key, tracked) in known {
                self.part(&public_key, tracked, Parting::With { ifindex }, peers);
            }
        }
        for interface in found {
            let mut known = self.peers.remove(&interface.ifindex).unwrap_or_default();
            let name = known
                .values()
                .next()
                .map(|tracked| tracked.interface.clone())
                .filter(|name| **name == *interface.name)
                .unwrap_or_else(|| interface.name.as_str().into());
            for peer in &interface.peers {
                match known.get_mut(&peer.public_key) {
                    Some(tracked) => self.refresh(tracked, &name, interface, peer, peers),
                    None => {
                        if let Some(tracked) = self.meet(&name, interface, peer, peers, before) {
                            known.insert(peer.public_key.clone(), tracked);
                        }
                    }
                }
            }
            let looks = self.looks;
            for (public_key, tracked) in known.extract_if(|_, tracked| tracked.look != looks) {
                self.part(&public_key, tracked, Parting::Removed, peers);
            }
            self.peers.insert(interface.ifindex, known);
        }
        if self.looks == 1 {
            self.miss(found, peers);
        }
        self.limit();
    }

    /// The first look at a peer.
    fn meet(
        &mut self,
        name: &Arc<str>,
        interface: &Interface,
        peer: &Peer,
        peers: &Peers,
        before: &impl Before,
    ) -> Option<Tracked> {
        let id = peers.id(interface.ifindex, &peer.public_key)?;
        let look = self.as_look(interface, peer);
        let mut tracked = Tracked {
            id,
            interface: name.clone(),
            epoch: 1,
            outer: outer(peer),
            asked: look.now.monotonic,
            session: PeerSession::default(),
            audit: Audit::default(),
            allowed_ips: peer.allowed_ips.clone(),
            look: self.looks,
        };
        let parked = self.parked.remove(&(name.clone(), peer.public_key.clone()));
        let is_another = parked
            .as_ref()
            .and_then(|parked| parked.ifindex)
            .is_some_and(|ifindex| ifindex != interface.ifindex);
        let known = parked.map(|parked| parked.state);
        let mut told = Vec::new();
        match known.or_else(|| self.remembered(name, &peer.public_key, before)) {
            None => told.push((begun_ms(&look, None), PeerEventKind::Added)),
            Some(state) => {
                let PeerState { handshake_ms, connected_ms, endpoint, .. } = state;
                tracked.epoch = state.epoch;
                tracked.session = PeerSession::of(handshake_ms, connected_ms, endpoint);
                let is_back = state.gone_ms.is_some();
                if is_back || is_another || is_reset((state.outer, handshake_ms), peer) {
                    tracked.epoch += 1;
                    let at_ms = begun_ms(&look, handshake_ms);
                    tracked.session.end(at_ms, |at, kind| told.push((at, kind)));
                    tracked.session = PeerSession::default();
                    let kind = if is_back { PeerEventKind::Added } else { PeerEventKind::Reset };
                    told.push((at_ms, kind));
                }
            }
        }
        let was = tracked.session.endpoint;
        tracked.session.resume(&look, |at, kind| told.push((at, kind)));
        self.tell(&peer.public_key, &tracked, was, &told, peers);
        Some(tracked)
    }

    /// What is known of a peer that was removed.
    fn remembered(
        &self,
        interface: &str,
        public_key: &str,
        before: &impl Before,
    ) -> Option<PeerState> {
        let is_it =
            |state: &&PeerState| *state.interface == *interface && state.public_key == public_key;
        // Nobody can have been removed before the first look.
        let waiting = (self.looks > 1).then(|| self.news.states.iter().rev().find(is_it)).flatten();
        waiting.cloned().or_else(|| before.peer_state(interface, public_key))
    }

    /// Another look at a peer.
    fn refresh(
        &mut self,
        tracked: &mut Tracked,
        name: &Arc<str>,
        interface: &Interface,
        peer: &Peer,
        peers: &Peers,
    ) {
        tracked.look = self.looks;
        if tracked.interface != *name {
            // The old name is nobody's any more.
            let old = PeerState {
                connected_ms: None,
                gone_ms: Some(now_ms()),
                ..tracked.state(&peer.public_key)
            };
            tracked.interface = name.clone();
            self.news.states.extend([old, tracked.state(&peer.public_key)]);
        }
        let look = self.as_look(interface, peer);
        if look.now.monotonic == tracked.asked {
            // Its control socket did not answer, and this is what it said before.
            return;
        }
        let mut told = Vec::new();
        if is_reset((tracked.outer, tracked.session.handshake_ms), peer) {
            self.interrupt(&peer.public_key, tracked, peers);
            tracked.audit = Audit::default();
            tracked.epoch += 1;
            let at_ms = begun_ms(&look, tracked.session.handshake_ms);
            tracked.session.end(at_ms, |at, kind| told.push((at, kind)));
            tracked.session = PeerSession::default();
            told.push((at_ms, PeerEventKind::Reset));
        } else if tracked.allowed_ips != peer.allowed_ips {
            // Packets of an address that moves may be counted for the other peer for a while.
            self.interrupt(&peer.public_key, tracked, peers);
        }
        if tracked.allowed_ips != peer.allowed_ips {
            let nets = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
            let event = Event::auto(now_ms(), word::PEER_ALLOWED_IPS_CHANGED)
                .on(&*peer.public_key)
                .with("interface", &*interface.name)
                .with("from", nets(&tracked.allowed_ips))
                .with("to", nets(&peer.allowed_ips));
            self.teller.tell(event);
        }
        tracked.allowed_ips.clone_from(&peer.allowed_ips);
        tracked.outer = outer(peer);
        tracked.asked = look.now.monotonic;
        let was = tracked.session.endpoint;
        tracked.session.observe(&look, |at, kind| told.push((at, kind)));
        self.tell(&peer.public_key, tracked, was, &told, peers);
        if let Some(finding) = tracked.audit.complete(tracked.outer, &look.now) {
            self.find(&peer.public_key, tracked, finding, peers);
        }
    }

    /// The peer is gone, or its interface with all its peers.
    fn part(&mut self, public_key: &str, mut tracked: Tracked, is: Parting, peers: &Peers) {
        self.interrupt(public_key, &mut tracked, peers);
        let now_ms = now_ms();
        let mut told = Vec::new();
        tracked.session.end(now_ms, |at, kind| told.push((at, kind)));
        let mut state = tracked.state(public_key);
        match is {
            Parting::Removed => {
                told.push((now_ms, PeerEventKind::Removed));
                state.gone_ms = Some(now_ms);
            }
            Parting::With { ifindex } => {
                let at = (state.interface.clone(), state.public_key.clone());
                self.parked.insert(at, Parked { state: state.clone(), ifindex: Some(ifindex) });
            }
        }
        self.tell(public_key, &tracked, tracked.session.endpoint, &told, peers);
        self.news.states.push(state);
    }

    /// After the first look: those whom the daemon before knew, and who are not there.
    fn miss(&mut self, found: &[Interface], peers: &Peers) {
        let now_ms = now_ms();
        let Self { parked, news, teller, .. } = self;
        for Parked { state, .. } in parked.values_mut() {
            let is_removed = found.iter().any(|interface| *interface.name == *state.interface);
            let mut session =
                PeerSession::of(state.handshake_ms, state.connected_ms.take(), state.endpoint);
            let mut tell = |at_ms, kind| {
                let PeerState { interface, epoch, endpoint, .. } = &*state;
                let peer = peers.named(&state.public_key, state.endpoint);
                let event =
                    PeerEvent { at_ms, kind, epoch: *epoch, endpoint: *endpoint, was: None };
                teller.tell(told_of(interface, &peer, &event));
                news.events.push(StoredEvent { interface: interface.clone(), peer, event });
            };
            session.end(now_ms, &mut tell);
            if is_removed {
                tell(now_ms, PeerEventKind::Removed);
                state.gone_ms = Some(now_ms);
            }
            news.states.push(state.clone());
        }
        parked.retain(|_, parked| parked.state.gone_ms.is_none());
    }

    /// Ends the window of a peer, and its gap; whatever happens until the next window starts is not
    /// judged.
    fn interrupt(&mut self, public_key: &str, tracked: &mut Tracked, peers: &Peers) {
        let (interface, coverage) = (tracked.interface.clone(), &tracked.audit.coverage);
        if coverage.is_out()
            && let Some(peer) = peers.identity(tracked.id)
        {
            let finding = Finding::Balanced { at_ms: now_ms(), missing: coverage.missing() };
            self.alarms.push(Alarm { interface, peer, finding });
        }
        if let Some(interval) = tracked.audit.interrupt() {
            self.keep(public_key, tracked, interval, peers);
        }
    }

    fn find(&mut self, public_key: &str, tracked: &Tracked, finding: Finding, peers: &Peers) {
        if let Finding::Unexplained(interval, _) = finding {
            self.keep(public_key, tracked, interval, peers);
        }
        if let Some(peer) = peers.identity(tracked.id) {
            self.alarms.push(Alarm { interface: tracked.interface.clone(), peer, finding });
        }
    }

    /// Ends everybody's window.
    pub(super) fn close_windows(&mut self, closing: Closing, peers: &Peers) {
        let mut all = std::mem::take(&mut self.peers);
        for (public_key, tracked) in all.values_mut().flatten() {
            if closing == Closing::Last || tracked.audit.coverage.is_settled() {
                if let Some(interval) = tracked.audit.coverage.close() {
                    self.keep(public_key, tracked, interval, peers);
                }
                self.news.states.push(tracked.state(public_key));
            }
        }
        self.peers = all;
    }

    fn keep(&mut self, public_key: &str, tracked: &Tracked, interval: Interval, peers: &Peers) {
        if interval.balance.is_empty() {
            return;
        }
        let peer = peers
            .identity(tracked.id)
            .unwrap_or_else(|| peers.named(public_key, tracked.session.endpoint));
        let (interface, epoch) = (tracked.interface.clone(), tracked.epoch);
        self.news.intervals.push(StoredInterval { interface, peer, epoch, interval });
    }

    /// Tells what happened to a peer, and keeps what the next daemon must know of it.
    fn tell(
        &mut self,
        public_key: &str,
        tracked: &Tracked,
        was: Option<SocketAddr>,
        told: &[(i64, PeerEventKind)],
        peers: &Peers,
    ) {
        if told.is_empty() {
            return;
        }
        let Tracked { interface, epoch, session, .. } = tracked;
        let peer = peers.named(public_key, session.endpoint);
        for (at_ms, kind) in told {
            let event = PeerEvent {
                at_ms: *at_ms,
                kind: *kind,
                epoch: *epoch,
                endpoint: session.endpoint,
                was: was.filter(|_| *kind == PeerEventKind::Roam),
            };
            tracing::debug!(
                peer = peer.name,
                interface = %interface,
                event = kind.word(),
                "told of a peer"
            );
            let (interface, peer) = (interface.clone(), peer.clone());
            self.teller.tell(told_of(&interface, &peer, &event));
            self.news.events.push(StoredEvent { interface, peer, event });
        }
        self.news.states.push(tracked.state(public_key));
    }

    fn as_look(&self, interface: &Interface, peer: &Peer) -> Look {
        let ago_ms = i64::try_from(interface.asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = Moment {
            wall_ms: now_ms().saturating_sub(ago_ms),
            monotonic: self.since_start(interface.asked),
        };
        Look { now, handshake_ms: peer.latest_handshake_ms, endpoint: peer.endpoint }
    }

    /// Forgets the oldest of what waits for a store that fails for too long.
    fn limit(&mut self) {
        let PeerNews { events, intervals, states } = &mut self.news;
        let too_many = |len: usize| len.saturating_sub(MAX_WAITING);
        let lost = too_many(events.len()) + too_many(intervals.len());
        events.drain(..too_many(events.len()));
        intervals.drain(..too_many(intervals.len()));
        states.drain(..too_many(states.len()));
        if lost > 0 && !self.is_losing {
            tracing::error!("the database takes nothing for too long: events of peers are lost");
        }
        self.is_losing = lost > 0;
    }
}

impl Tracked {
    fn state(&self, public_key: &str) -> PeerState {
        let Self { interface, epoch, outer, session, .. } = self;
        PeerState {
            interface: interface.clone(),
            public_key: public_key.to_owned(),
            epoch: *epoch,
            outer: *outer,
            handshake_ms: session.handshake_ms,
            connected_ms: session.connected_ms,
            gone_ms: None,
            endpoint: session.endpoint,
        }
    }
}

/// What the audit log is told of what happened to a peer.
fn told_of(interface: &str, peer: &Identity, event: &PeerEvent) -> Event {
    let PeerEvent { at_ms, kind, epoch: _, endpoint, was } = event;
    let word = match kind {
        PeerEventKind::Added => word::PEER_ADDED,
        PeerEventKind::Removed => word::PEER_REMOVED,
        PeerEventKind::Connect => word::PEER_SESSION_OPENED,
        PeerEventKind::Disconnect => word::PEER_SESSION_CLOSED,
        PeerEventKind::Roam => word::PEER_ENDPOINT_CHANGED,
        PeerEventKind::Reset => word::PEER_RESET,
    };
    let event = Event::auto(*at_ms, word)
        .on(&*peer.public_key)
        .with("interface", interface)
        .with("name", &*peer.name)
        .with("endpoint", endpoint.map(|endpoint| endpoint.to_string()));
    match was {
        Some(was) => event.with("was", was.to_string()),
        None => event,
    }
}

fn outer(peer: &Peer) -> Outer {
    Outer { rx_bytes: peer.rx_bytes, tx_bytes: peer.tx_bytes }
}

/// When at the latest the peer was as it is at this look: it may have had a handshake before.
fn begun_ms(look: &Look, known_ms: Option<i64>) -> i64 {
    let newer = look.handshake_ms.filter(|newer_ms| Some(*newer_ms) > known_ms);
    newer.map_or(look.now.wall_ms, |newer_ms| newer_ms.min(look.now.wall_ms))
}

/// Whether WireGuard forgot the peer since: it counts, or its handshakes, begin anew.
fn is_reset((then, handshake_ms): (Outer, Option<i64>), peer: &Peer) -> bool {
    peer.rx_bytes < then.rx_bytes
        || peer.tx_bytes < then.tx_bytes
        || peer.latest_handshake_ms < handshake_ms
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
