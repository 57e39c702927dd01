use crate::{
    ctl::{
        output::{Format, Screen, Sink},
        peers,
    },
    flows::{Counters, Identity, PeerEventKind},
    wire::{
        Balance, BalanceState, Coverage, Peer, PeerDetail, PeerEvent, PeerInterval, PeerList,
        PeerSession, SessionEndpoint, Timestamp, WireguardCounters,
    },
};

const NOW: i64 = 1_795_233_600_000;

fn endpoint(host: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([192, 0, 2, host], 51_820))
}

fn identity() -> Identity {
    Identity {
        public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned(),
        name: "alice-laptop".to_owned(),
        user: Some("alice@example.com".to_owned()),
        device: None,
        groups: vec!["ops".to_owned()],
        endpoint: Some(endpoint(7)),
    }
}

fn coverage(rx_off: i64, tx_off: i64) -> Coverage {
    let balance = |off_bytes| Balance {
        state: match off_bytes {
            0 => BalanceState::Balanced,
            1.. => BalanceState::Over,
            _ => BalanceState::Short,
        },
        off_bytes,
    };
    Coverage {
        since: Timestamp(NOW - 900_000),
        until: Timestamp(NOW),
        epoch: 2,
        counters: Counters { rx_packets: 10, rx_bytes: 1_000, tx_packets: 10, tx_bytes: 2_000 },
        wireguard: WireguardCounters { rx_bytes: 1_500, tx_bytes: 2_500 },
        rx: balance(rx_off),
        tx: balance(tx_off),
    }
}

fn peer() -> Peer {
    Peer {
        identity: identity(),
        interface: "wg0".to_owned(),
        allowed_ips: vec!["10.8.0.2/32".to_owned()],
        latest_handshake: Some(Timestamp(NOW - 60_000)),
        connected_since: Some(Timestamp(NOW - 3_600_000)),
        open_flows: 3,
        counters: coverage(0, 0).counters,
        wireguard: WireguardCounters { rx_bytes: 1_500, tx_bytes: 2_500 },
        coverage: Some(coverage(0, 0)),
    }
}

fn detail() -> PeerDetail {
    let at = |minutes_ago: i64| Timestamp(NOW - minutes_ago * 60_000);
    PeerDetail {
        identity: identity(),
        interfaces: vec![peer()],
        since: at(10_000),
        until: at(0),
        sessions: vec![
            PeerSession {
                interface: "wg0".to_owned(),
                connected: None,
                disconnected: Some(at(200)),
                endpoints: vec![],
            },
            PeerSession {
                interface: "wg0".to_owned(),
                connected: Some(at(60)),
                disconnected: None,
                endpoints: vec![
                    SessionEndpoint { since: at(60), endpoint: endpoint(7) },
                    SessionEndpoint { since: at(5), endpoint: endpoint(8) },
                ],
            },
        ],
        events: vec![PeerEvent {
            at: at(5),
            kind: PeerEventKind::Roam,
            interface: "wg0".to_owned(),
            endpoint: Some(endpoint(8)),
            was: Some(endpoint(7)),
            epoch: 2,
        }],
        coverage: vec![PeerInterval {
            interface: "wg0".to_owned(),
            coverage: coverage(4_000, -64),
        }],
    }
}

/// What 80 columns show.
fn shown(detail: &PeerDetail) -> String {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), Timestamp(NOW), 80);
    super::show(&mut screen, detail).unwrap();
    sink.text()
}

#[test]
fn a_peer_is_shown_with_its_sessions_and_its_books() {
    let expected = "\
Identity
  Name         alice-laptop
  User         alice@example.com
  Device       -
  Groups       ops
  Public key   xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=

On wg0
  State        connected since 2026-11-21 03:00:00.000 UTC
  Endpoint     192.0.2.7:51820
  Handshake    1m00s ago
  Allowed IPs  10.8.0.2/32
  Open flows   3
  flowd        1.0 kB received, 2.0 kB sent
  WireGuard    1.5 kB received, 2.5 kB sent
  Coverage     balanced since 2026-11-21 03:45:00.000 UTC

Sessions
CONNECTED (UTC)       DISCONNECTED  ENDPOINT         INTERFACE
before                00:40:00      -                wg0
03:00:00              -             192.0.2.7:51820  wg0
  03:55:00 roamed to                192.0.2.8:51820

Coverage
FROM (UTC)  UNTIL         RX      TX   WG-RX   WG-TX  COVERAGE
03:45:00    04:00:00  1.0 kB  2.0 kB  1.5 kB  2.5 kB  rx +4.0 kB, tx -64 B
";
    assert_eq!(shown(&detail()), expected);
}

#[test]
fn a_peer_that_was_removed_is_shown_as_far_as_it_is_known() {
    let removed = PeerDetail { interfaces: vec![], sessions: vec![], coverage: vec![], ..detail() };
    let text = shown(&removed);
    for line in ["It is on no interface now.", "  none since 2026-", "  no window is over since"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn eighty_columns_are_enough_for_whether_the_books_balance() {
    let mut over = peer();
    over.interface = "wg-headquarters".to_owned();
    over.coverage = Some(coverage(4_000_000, -123_456));
    let list = PeerList { peers: vec![peer(), over, Peer { coverage: None, ..peer() }] };
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), Timestamp(NOW), 80);
    peers::run(&mut screen, Format::Table, &list).unwrap();
    let text = sink.text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let column: Vec<&str> =
        text.lines().map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
    assert_eq!(column, ["COVERAGE", "balanced", "rx +4.0 MB, tx -123 kB", "-"]);
}
