use std::sync::Arc;

use super::{PeerEvent, PeerEventKind, PeerNews, PeerState, Reader, StoredEvent, StoredInterval};
use crate::{
    flows::{Balance, Counters, Identity, Interval, Outer},
    store::Writer,
};

const DAY: i64 = 86_400_000;

fn identity(name: &str) -> Arc<Identity> {
    Arc::new(Identity {
        public_key: format!("{name}-key"),
        name: name.to_owned(),
        user: None,
        device: None,
        groups: vec!["ops".to_owned()],
        endpoint: "192.0.2.7:51820".parse().ok(),
    })
}

fn event(name: &str, at_ms: i64, kind: PeerEventKind) -> StoredEvent {
    let event = PeerEvent {
        at_ms,
        kind,
        epoch: 1,
        endpoint: "[2001:db8::7]:51820".parse().ok(),
        was: "192.0.2.7:51820".parse().ok(),
    };
    StoredEvent { interface: "wg0".into(), peer: identity(name), event }
}

fn interval(name: &str, end_ms: i64) -> StoredInterval {
    let flows = Counters { rx_packets: 1, rx_bytes: 2, tx_packets: 3, tx_bytes: 4 };
    let outer = Outer { rx_bytes: 5, tx_bytes: 6 };
    let balance = Balance { flows, outer, rx_off: 7, tx_off: -8 };
    let interval = Interval { start_ms: end_ms - 900_000, end_ms, balance };
    StoredInterval { interface: "wg0".into(), peer: identity(name), epoch: 2, interval }
}

fn state(name: &str, gone_ms: Option<i64>) -> PeerState {
    PeerState {
        interface: "wg0".into(),
        public_key: format!("{name}-key"),
        epoch: 3,
        outer: Outer { rx_bytes: 10, tx_bytes: 20 },
        handshake_ms: Some(30),
        connected_ms: Some(40),
        gone_ms,
        endpoint: "192.0.2.7:51820".parse().ok(),
    }
}

#[test]
fn what_is_told_of_peers_is_read_back_over_days_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let roam = event("alice", 1_000, PeerEventKind::Roam);
    let news = PeerNews {
        events: vec![roam.clone(), event("bob", 1_000, PeerEventKind::Added)],
        intervals: vec![interval("alice", 900_000), interval("bob", 900_000)],
        states: vec![state("alice", None), state("bob", Some(5))],
    };
    assert!(!news.is_empty() && PeerNews::default().is_empty());
    writer.put_peer_news(0, &news).unwrap();
    // Noticed on the third day, and of the first.
    let late = event("alice", 2_000, PeerEventKind::Disconnect);
    let later = PeerNews {
        events: vec![late.clone()],
        intervals: vec![interval("alice", 2 * DAY)],
        states: vec![PeerState { epoch: 4, ..state("alice", None) }],
    };
    writer.put_peer_news(2 * DAY, &later).unwrap();
    writer.close();

    let writer = Writer::open(dir.path(), "gw", 3 * DAY).unwrap();
    let alice = PeerState { epoch: 4, ..state("alice", None) };
    assert_eq!(writer.peer_state("wg0", "alice-key").unwrap(), Some(alice.clone()));
    assert_eq!(writer.peer_states().unwrap(), vec![alice]);
    assert_eq!(writer.peer_state("wg0", "bob-key").unwrap(), Some(state("bob", Some(5))));
    assert_eq!(writer.peer_state("wg1", "bob-key").unwrap(), None);

    let reader = Reader::new(dir.path(), "gw");
    let events = |since, until| {
        let found = reader.peer_events("alice-key", since, until).unwrap();
        found.into_iter().map(|stored| stored.event).collect::<Vec<_>>()
    };
    assert_eq!(events(None, None), [roam.event, late.event]);
    assert_eq!(events(Some(1_001), None), [late.event]);
    assert_eq!(events(None, Some(2_000)), [roam.event]);
    let intervals = |since, until| {
        let found = reader.coverage("alice-key", since, until).unwrap();
        found.into_iter().map(|stored| (stored.epoch, stored.interval)).collect::<Vec<_>>()
    };
    let (first, second) =
        (interval("alice", 900_000).interval, interval("alice", 2 * DAY).interval);
    assert_eq!(intervals(None, None), [(2, first), (2, second)]);
    assert_eq!(intervals(Some(DAY), None), [(2, second)]);
    assert_eq!(intervals(None, Some(DAY)), [(2, first)]);
}

#[test]
fn peers_are_found_in_the_store_by_name_key_or_the_start_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    for name in ["alice", "alina", "bob"] {
        let events = vec![event(name, 1, PeerEventKind::Added)];
        writer.put_peer_news(0, &PeerNews { events, ..PeerNews::default() }).unwrap();
    }
    let reader = Reader::new(dir.path(), "gw");
    let cases: [(&str, &[&str]); 6] = [
        ("bob", &["bob"]),
        ("alice-key", &["alice"]),
        ("bob-k", &["bob"]),
        ("ali", &[]),
        ("", &[]),
        ("%", &[]),
    ];
    for (wanted, expected) in cases {
        let found = reader.find_peers(wanted).unwrap();
        let names: Vec<&str> = found.iter().map(|identity| identity.name.as_str()).collect();
        assert_eq!(names, expected, "{wanted}");
    }
}

#[test]
fn an_hour_of_a_thousand_peers_costs_a_few_hundred_kilobytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    for quarter in 1..=4 {
        let intervals = (0..1_000)
            .map(|number| {
                let mut interval = interval(&format!("peer{number}"), quarter * 900_000);
                interval.interval.balance.flows.rx_bytes = 1 << 40;
                interval.interval.balance.outer.rx_bytes = 1 << 40;
                interval
            })
            .collect();
        let news = PeerNews { intervals, ..PeerNews::default() };
        writer.put_peer_news(quarter * 900_000, &news).unwrap();
    }
    writer.close();
    let size = std::fs::metadata(dir.path().join("segments/1970-01-01.sqlite")).unwrap().len();
    // The peers' own rows are some 150 kB of it.
    assert!(size < 500_000, "{size} bytes");
}
