use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Before, Closing, PeerEventKind as Kind, PeerState, Sessions, now_ms};
use crate::{
    daemon::peers::Peers,
    store::PeerNews,
    wireguard::{Backend, Interface, Peer},
};

/// The store, as far as peers are concerned.
#[derive(Default)]
struct Memory(BTreeMap<(String, String), PeerState>);

impl Before for Memory {
    fn peer_state(&self, interface: &str, public_key: &str) -> Option<PeerState> {
        self.0.get(&(interface.to_owned(), public_key.to_owned())).cloned()
    }

    fn peer_states(&self) -> Vec<PeerState> {
        self.0.values().filter(|state| state.gone_ms.is_none()).cloned().collect()
    }
}

/// A gateway that is looked at again and again.
struct Gateway {
    sessions: Sessions,
    peers: Peers,
    memory: Memory,
    /// The clock of the looks.
    asked: Instant,
}

impl Gateway {
    fn new() -> Self {
        let (sessions, peers) = (Sessions::new(), Peers::default());
        Self { sessions, peers, memory: Memory::default(), asked: Instant::now() }
    }

    /// Another daemon, over the same store.
    fn restart(self) -> Self {
        Self { memory: self.memory, ..Self::new() }
    }

    /// A look; what happened, and in which epoch.
    fn look(&mut self, found: &[(&str, u32, Vec<Peer>)]) -> Vec<(String, Kind, u32)> {
        let told = self.look_unstored(found);
        self.store();
        told
    }

    /// A look before the store has what the one before told.
    fn look_unstored(&mut self, found: &[(&str, u32, Vec<Peer>)]) -> Vec<(String, Kind, u32)> {
        self.asked += Duration::from_millis(1);
        let interface = |(name, ifindex, peers): &(&str, u32, Vec<Peer>)| Interface {
            name: (*name).to_owned(),
            ifindex: *ifindex,
            backend: Backend::Kernel,
            peers: peers.clone(),
            asked: self.asked,
        };
        let found: Vec<Interface> = found.iter().map(interface).collect();
        let before = self.sessions.news.events.len();
        self.peers.update(&found, [].into());
        self.sessions.look(&found, &self.peers, &self.memory);
        let new = &self.sessions.news.events[before..];
        new.iter().map(|e| (e.peer.public_key.clone(), e.event.kind, e.event.epoch)).collect()
    }

    fn store(&mut self) {
        for state in std::mem::take(&mut self.sessions.news).states {
            let at = (state.interface.to_string(), state.public_key.clone());
            self.memory.0.insert(at, state);
        }
    }
}

/// A peer with these counters and a handshake so many seconds ago.
fn peer(key: &str, bytes: u64, handshake_s_ago: Option<i64>) -> Peer {
    Peer {
        public_key: key.to_owned(),
        endpoint: "192.0.2.7:51820".parse().ok(),
        allowed_ips: vec![],
        latest_handshake_ms: handshake_s_ago.map(|s| now_ms() - s * 1_000),
        rx_bytes: bytes,
        tx_bytes: bytes,
    }
}

fn told(events: &[(&str, Kind, u32)]) -> Vec<(String, Kind, u32)> {
    events.iter().map(|(key, kind, epoch)| ((*key).to_owned(), *kind, *epoch)).collect()
}

#[test]
fn a_peer_is_added_connects_moves_and_is_removed() {
    let mut gateway = Gateway::new();
    let new = peer("a", 0, None);
    assert_eq!(gateway.look(&[("wg0", 1, vec![new])]), told(&[("a", Kind::Added, 1)]));
    let mut here = peer("a", 200, Some(1));
    let look = |peer: &Peer| [("wg0", 1, vec![peer.clone()])];
    assert_eq!(gateway.look(&look(&here)), told(&[("a", Kind::Connect, 1)]));
    assert_eq!(gateway.look(&look(&here)), []);
    here.endpoint = "192.0.2.8:51820".parse().ok();
    let from = "192.0.2.7:51820".parse().ok();
    assert_eq!(gateway.look_unstored(&look(&here)), told(&[("a", Kind::Roam, 1)]));
    let roam = gateway.sessions.news.events[0].event;
    assert_eq!((roam.was, roam.endpoint), (from, here.endpoint));
    let gone = [("a", Kind::Disconnect, 1), ("a", Kind::Removed, 1)];
    assert_eq!(gateway.look(&[("wg0", 1, vec![])]), told(&gone));
    assert_eq!(gateway.look(&[("wg0", 1, vec![])]), []);
}

#[test]
fn counters_from_zero_are_a_new_epoch() {
    let with = |peer: Peer| [("wg0", 1, vec![peer])];
    let mut gateway = Gateway::new();
    gateway.look(&with(peer("a", 500, Some(9))));
    // Removed and added in between two looks.
    let again = [("a", Kind::Disconnect, 2), ("a", Kind::Reset, 2)];
    assert_eq!(gateway.look(&with(peer("a", 0, None))), told(&again));
    assert_eq!(gateway.look(&with(peer("a", 900, Some(0)))), told(&[("a", Kind::Connect, 2)]));
    // With looks in between, and before the store has them.
    gateway.look_unstored(&[("wg0", 1, vec![])]);
    assert_eq!(gateway.look(&with(peer("a", 0, None))), told(&[("a", Kind::Added, 3)]));
    assert_eq!(gateway.look(&with(peer("a", 1_000, None))), []);
    // Another interface of the same name, whose counters are already higher.
    let seen = gateway.look(&[("wg0", 2, vec![peer("a", 2_000, None)])]);
    assert_eq!(seen, told(&[("a", Kind::Reset, 4)]));
    assert_eq!(gateway.look(&[]), []);
    let seen = gateway.look(&[("wg0", 2, vec![peer("a", 3_000, None)])]);
    assert_eq!(seen, [], "the same interface was only out of sight");
}

#[test]
fn a_restart_goes_on_with_sessions_and_epochs() {
    let with = |peer: Peer| [("wg0", 1, vec![peer])];
    let cases = [
        // after the restart; what is told
        (Some(peer("a", 500, Some(30))), vec![]),
        (Some(peer("a", 900, Some(2))), vec![]),
        (Some(peer("a", 900, Some(7))), vec![]),
        (
            Some(peer("a", 100, Some(2))),
            vec![("a", Kind::Disconnect, 2), ("a", Kind::Reset, 2), ("a", Kind::Connect, 2)],
        ),
        (Some(peer("a", 0, None)), vec![("a", Kind::Disconnect, 2), ("a", Kind::Reset, 2)]),
        (None, vec![("a", Kind::Disconnect, 1), ("a", Kind::Removed, 1)]),
    ];
    for (after, expected) in cases {
        let mut gateway = Gateway::new();
        let known = [("a", Kind::Added, 1), ("a", Kind::Connect, 1)];
        assert_eq!(gateway.look(&with(peer("a", 500, Some(30)))), told(&known));
        gateway.sessions.close_windows(Closing::Last, &gateway.peers);
        gateway.store();
        let mut gateway = gateway.restart();
        let found = after.clone().map_or_else(|| vec![("wg0", 7, vec![])], |p| with(p).to_vec());
        assert_eq!(gateway.look(&found), told(&expected), "{after:?}");
        assert_eq!(gateway.look(&found), [], "{after:?}");
    }
}

#[test]
fn peers_of_an_interface_that_is_gone_at_the_start_have_disconnected_and_come_back() {
    let mut gateway = Gateway::new();
    let with = |seconds| [("wg0", 1, vec![peer("a", 500, Some(seconds))])];
    gateway.look(&with(30));
    let mut gateway = gateway.restart();
    assert_eq!(gateway.look(&[]), told(&[("a", Kind::Disconnect, 1)]));
    assert_eq!(gateway.look(&with(1)), told(&[("a", Kind::Connect, 1)]));
}

#[test]
fn a_look_that_is_no_news_tells_nothing() {
    let mut gateway = Gateway::new();
    gateway.look(&[("wg0", 1, vec![peer("a", 500, Some(30))])]);
    // A control socket that does not answer: as it was, of then.
    gateway.asked -= Duration::from_millis(1);
    assert_eq!(gateway.look(&[("wg0", 1, vec![peer("a", 0, None)])]), []);
}

#[test]
fn a_store_that_takes_nothing_for_long_costs_bounded_memory() {
    let mut gateway = Gateway::new();
    gateway.look(&[("wg0", 1, vec![])]);
    let everybody: Vec<Peer> = (0..500).map(|n| peer(&format!("key {n}"), 0, None)).collect();
    for _ in 0..150 {
        gateway.look_unstored(&[("wg0", 1, everybody.clone())]);
        gateway.look_unstored(&[("wg0", 1, vec![])]);
    }
    let PeerNews { events, intervals, states } = &gateway.sessions.news;
    assert_eq!((events.len(), intervals.len()), (super::MAX_WAITING, 0));
    assert!(states.len() <= super::MAX_WAITING);
}
