//! flowd's books of a peer against WireGuard's own counters, and the peer's sessions.

use std::net::{IpAddr, SocketAddr};

use flowd::{
    flows::{Counters, PeerEventKind as Kind},
    wire::{BalanceState, Coverage, PeerDetail, WireguardCounters},
};
use flowd_tests::{
    counters::{explained_by_wireguard, wireguard_bytes},
    flowctl::Flowctl,
    namespace::Namespace,
    site::Settings,
    topology::{LAN_V4, LAN_V6, Peer, Topology},
    traffic::{Load, packet, raw, tcp, udp},
    wait, wireguard,
};

use crate::books::flowd_on;

/// What flowd has compared for a peer, once it has.
fn compared(ctl: &Flowctl<'_>, name: &str) -> Coverage {
    wait::until_some(wait::SOON, "flowd compares", || {
        let peers = ctl.peers().peers.into_iter();
        peers.filter(|peer| peer.identity.name == name).find_map(|peer| peer.coverage)
    })
}

/// The same, once it knows of everything that flowd counted and WireGuard did.
fn compared_up_to_now(ctl: &Flowctl<'_>, gateway: &Namespace, peer: &Peer) -> Coverage {
    compared_with_outer(ctl, gateway, peer).0
}

/// The same beside what WireGuard's own counters were then.
fn compared_with_outer(
    ctl: &Flowctl<'_>,
    gateway: &Namespace,
    peer: &Peer,
) -> (Coverage, WireguardCounters) {
    wait::until_some(wait::SOON, "flowd compares everything", || {
        let outer = outer(gateway, peer);
        let shown = ctl.peers().peers.into_iter().find(|p| p.identity.name == peer.name)?;
        let is_quiet = shown.wireguard == outer && outer == self::outer(gateway, peer);
        let coverage = shown.coverage.filter(|it| is_quiet && it.counters == shown.counters)?;
        Some((coverage, outer))
    })
}

/// WireGuard's counters of a peer of the gateway, as `wg` tells them.
fn outer(gateway: &Namespace, peer: &Peer) -> WireguardCounters {
    let dump = wireguard::peers(gateway, &peer.interface);
    let found = dump.iter().find(|dump| dump.public_key == peer.keys.public).expect("admitted");
    WireguardCounters { rx_bytes: found.rx_bytes, tx_bytes: found.tx_bytes }
}

fn kinds(detail: &PeerDetail) -> Vec<(Kind, u32)> {
    detail.events.iter().map(|event| (event.kind, event.epoch)).collect()
}

fn exchange(net: &Topology, peer: &Peer, payloads: &[usize]) -> Load {
    let near = (&peer.namespace, peer.v4.into());
    udp::Pair::new(near, (&net.gateway, net.gateway_v4(peer))).exchange(payloads)
}

#[test]
fn every_size_is_wrapped_as_the_band_says_to_the_byte() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let (start, before) = compared_with_outer(&ctl, &net.gateway, peer);
    // Every remainder by 16, and every packet up to the MTU, where padding ends.
    let payloads: Vec<usize> = (0..48).chain(1_350..1_373).collect();
    let mut least = 0;
    for (near, far) in
        [(IpAddr::from(peer.v4), net.gateway_v4(peer)), (peer.v6.into(), net.gateway_v6(peer))]
    {
        let pair = udp::Pair::new((&peer.namespace, near), (&net.gateway, far));
        pair.exchange(&payloads);
        let lengths = payloads.iter().map(|payload| udp::datagram(near, *payload).bytes);
        least += lengths.map(|length| wireguard_bytes(length).min(32 + udp::MTU)).sum::<u64>();
    }
    let (told, after) = compared_with_outer(&ctl, &net.gateway, peer);
    let packets = 2 * payloads.len() as u64;
    assert_eq!((told.counters.rx_packets, told.counters.tx_packets), (packets, packets));
    for grown in [after.rx_bytes - before.rx_bytes, after.tx_bytes - before.tx_bytes] {
        let own = grown.checked_sub(least).expect("every packet was carried");
        assert!((0..8).any(|messages| explained_by_wireguard(messages, own)), "{own} bytes");
    }
    assert_eq!((told.rx.off_bytes, told.tx.off_bytes), (0, 0), "{told:?}");
    assert_eq!((told.rx.state, told.tx.state), (BalanceState::Balanced, BalanceState::Balanced));
    let grown = (
        told.wireguard.rx_bytes - start.wireguard.rx_bytes,
        told.wireguard.tx_bytes - start.wireguard.tx_bytes,
    );
    assert_eq!(
        grown,
        (after.rx_bytes - before.rx_bytes, after.tx_bytes - before.tx_bytes),
        "what flowd compares with is what `wg show` says"
    );
    assert_eq!(ctl.gaps(&["--stage", "coverage"]), []);
    daemon.stop();
}

#[test]
fn super_packets_fragments_and_pings_are_balanced_and_the_window_is_stored() {
    let mut net = Topology::new(2);
    net.add_lan();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    compared(&ctl, "peer0");
    let (peer, lan) = (&net.peers[0], net.lan.as_ref().expect("added"));
    for (inside, outside) in
        [(IpAddr::from(peer.v4), IpAddr::from(LAN_V4)), (peer.v6.into(), LAN_V6.into())]
    {
        let mut connection = tcp::Connection::open((&peer.namespace, inside), (lan, outside), 8080);
        connection.transfer(500_000, 3_000_000);
        connection.close();
        raw::ping((&peer.namespace, inside), outside, 4711, 5, 56);
    }
    exchange(&net, peer, &[5_000, 3_000]);
    let told = compared_up_to_now(&ctl, &net.gateway, peer);
    assert!(told.counters.tx_bytes > 6_000_000 && told.counters.rx_bytes > 1_000_000, "{told:?}");
    assert_eq!(told.rx.off_bytes, 0, "{told:?}");
    // A TUN device and the kernel's queue of a peer drop what they do not take, after flowd.
    assert!(told.tx.off_bytes <= 0, "{told:?}");
    assert_eq!(ctl.gaps(&["--stage", "coverage"]), []);
    daemon.stop();

    let daemon = site.start(&net.gateway);
    let stored = ctl.peer("peer0").coverage;
    let sum = stored.iter().fold(Counters::default(), |sum, one| sum + one.coverage.counters);
    assert_eq!(sum, told.counters, "the windows of the daemon before: {stored:#?}");
    assert!(stored.iter().all(|one| one.coverage.rx.off_bytes == 0), "{stored:#?}");
    // WireGuard may have greeted the other peer meanwhile.
    let other = ctl.peer("peer1").coverage;
    assert!(other.iter().all(|one| one.coverage.counters == Counters::default()), "{other:#?}");
    assert!(other.iter().all(|one| one.coverage.rx.off_bytes == 0), "{other:#?}");
    daemon.stop();
}

#[test]
fn packets_that_get_past_flowd_are_a_gap_until_the_books_balance_again() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    compared(&ctl, "peer0");
    compared(&ctl, "peer1");
    exchange(&net, peer, &[100; 5]);
    let (IpAddr::V4(gateway), before) = (net.gateway_v4(peer), outer(&net.gateway, peer)) else {
        panic!("it is IPv4")
    };
    let inner = packet::udp(gateway.into(), peer.v4.into(), (7000, 7000), &[7; 1_000]);
    let unseen = packet::ipv4(gateway, peer.v4, 17, &[], &inner);
    for _ in 0..200 {
        raw::inject_unseen(&net.gateway, "wg0", &unseen);
    }
    let carried = 200 * wireguard_bytes(unseen.len() as u64);
    wait::until(wait::SOON, "WireGuard carries them", || {
        outer(&net.gateway, peer).tx_bytes - before.tx_bytes >= carried
    });
    let gap = wait::until_some(wait::SOON, "the gap ends", || {
        ctl.gaps(&["--stage", "coverage"]).into_iter().find(|gap| gap.to.is_some())
    });
    assert_eq!(gap.peer.as_ref().map(|peer| peer.name.as_str()), Some("peer0"), "{gap:?}");
    assert_eq!(gap.interface.as_deref(), Some("wg0"));
    // At most so much: what WireGuard carried between two readings may be in two windows, and
    // messages of its own are in it.
    let bytes = gap.bytes.expect("it is known");
    assert!((carried..=2 * carried + 20_000).contains(&bytes), "{bytes} of {carried}");
    assert!(gap.packets.is_some_and(|packets| (200..=bytes / 32).contains(&packets)), "{gap:?}");
    assert!(gap.detail.starts_with("no flow explains 0 bytes that WireGuard received and "));
    let told = compared(&ctl, "peer0");
    assert_eq!((told.rx.state, told.tx.state), (BalanceState::Balanced, BalanceState::Over));
    assert!((1..=carried).contains(&told.tx.off_bytes.unsigned_abs()), "surely so much: {told:?}");
    let other = compared(&ctl, "peer1");
    assert_eq!((other.rx.off_bytes, other.tx.off_bytes), (0, 0), "the other peer's books balance");
    assert_eq!(ctl.gaps(&["--stage", "coverage"]).len(), 1);
    wait::until(wait::SOON, "the window is stored", || {
        ctl.peer("peer0").coverage.iter().any(|one| one.coverage.tx.state == BalanceState::Over)
    });
    daemon.stop();
}

#[test]
fn a_peer_that_is_added_again_and_an_interface_made_anew_begin_an_epoch_and_no_gap() {
    let mut net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let told = |name: &str| kinds(&ctl.peer(name));
    let begun = vec![(Kind::Added, 1), (Kind::Connect, 1)];
    wait::until_equal("it is met", &begun, || told("peer0"));
    let payloads = [700; 20];
    compared(&ctl, "peer0");
    exchange(&net, &net.peers[0], &payloads);
    compared_up_to_now(&ctl, &net.gateway, &net.peers[0]);

    net.dismiss(&net.peers[0]);
    let removed = [begun.clone(), vec![(Kind::Disconnect, 1), (Kind::Removed, 1)]].concat();
    wait::until_equal("it is gone", &removed, || told("peer0"));
    assert_eq!(ctl.peer("peer0").interfaces, [], "and still answered");
    net.admit(&net.peers[0], &net.peers[0].allowed_ips());
    net.reconnect(&net.peers[0]);
    let again = [removed, vec![(Kind::Added, 2), (Kind::Connect, 2)]].concat();
    wait::until_equal("it is back", &again, || told("peer0"));
    exchange(&net, &net.peers[0], &payloads);
    let told_of = compared_again(&ctl, "peer0", 2);
    assert_eq!((told_of.rx.off_bytes, told_of.tx.off_bytes), (0, 0), "{told_of:?}");

    net.lower("wg0");
    let gone = [begun, vec![(Kind::Disconnect, 1)]].concat();
    let ctl = site.flowctl(&net.gateway);
    wait::until_equal("its interface is gone", &gone, || kinds(&ctl.peer("peer1")));
    net.raise("wg0");
    let ctl = site.flowctl(&net.gateway);
    net.reconnect(&net.peers[1]);
    let anew = [gone, vec![(Kind::Reset, 2), (Kind::Connect, 2)]].concat();
    wait::until_equal("its interface is back", &anew, || kinds(&ctl.peer("peer1")));
    exchange(&net, &net.peers[1], &payloads);
    let told_of = compared_again(&ctl, "peer1", 2);
    assert_eq!((told_of.rx.off_bytes, told_of.tx.off_bytes), (0, 0), "{told_of:?}");
    assert_eq!(ctl.gaps(&["--stage", "coverage"]), []);
    daemon.stop();
}

/// What flowd has compared for a peer in an epoch, once it has looked more than once.
fn compared_again(ctl: &Flowctl<'_>, name: &str, epoch: u32) -> Coverage {
    wait::until_some(wait::SOON, "flowd compares in the new epoch", || {
        Some(compared(ctl, name)).filter(|told| told.epoch == epoch && told.since < told.until)
    })
}

#[test]
fn a_session_goes_on_when_the_peer_moves_and_when_flowd_restarts() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let begun = vec![(Kind::Added, 1), (Kind::Connect, 1)];
    wait::until_equal("it is met", &begun, || kinds(&ctl.peer("peer0")));
    let connected = ctl.peers().peers[0].connected_since.expect("there is a session");

    wireguard::move_to_port(&peer.namespace, "wg0", 51_999);
    exchange(&net, peer, &[100]);
    let moved = [begun, vec![(Kind::Roam, 1)]].concat();
    wait::until_equal("it roams", &moved, || kinds(&ctl.peer("peer0")));
    let detail = ctl.peer("peer0");
    let at = |port| SocketAddr::from(([172, 31, 0, 2], port));
    let roam = detail.events.last().expect("it roamed");
    assert_eq!((roam.was, roam.endpoint), (Some(at(51_820)), Some(at(51_999))));
    assert_eq!(detail.sessions.len(), 1, "{:#?}", detail.sessions);
    let session = &detail.sessions[0];
    assert_eq!((session.connected, session.disconnected), (Some(connected), None));
    let endpoints: Vec<SocketAddr> = session.endpoints.iter().map(|one| one.endpoint).collect();
    assert_eq!(endpoints, [at(51_820), at(51_999)]);
    daemon.stop();

    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    exchange(&net, peer, &[100]);
    compared(&ctl, "peer0");
    assert_eq!(kinds(&ctl.peer("peer0")), moved, "nothing is invented");
    assert_eq!(ctl.peers().peers[0].connected_since, Some(connected));
    daemon.kill();

    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    compared(&ctl, "peer0");
    assert_eq!(kinds(&ctl.peer("peer0")), moved, "nor after a kill");

    let unknown = ctl.failure(&["peer", "peer9"], 1);
    assert!(unknown.contains("did you mean `peer0`?"), "{unknown}");
    daemon.stop();
}

#[test]
fn a_peer_that_went_silent_is_there_until_its_session_is_over() {
    let mut net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let silent = net.peers.pop().expect("two were planned");
    let ctl = site.flowctl(&net.gateway);
    let begun = vec![(Kind::Added, 1), (Kind::Connect, 1)];
    wait::until_equal("it is met", &begun, || kinds(&ctl.peer("peer1")));
    let Peer { link, namespace, .. } = silent;
    link.remove(&namespace);
    let looks = ctl.status().drain.count;
    wait::until(wait::SOON, "flowd has looked again and again", || {
        ctl.status().drain.count > looks + 20
    });
    assert_eq!(kinds(&ctl.peer("peer1")), begun);
    assert!(ctl.peer("peer1").interfaces[0].connected_since.is_some());
    daemon.stop();
}
