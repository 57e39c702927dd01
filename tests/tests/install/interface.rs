//! flowd and wg-quick: whichever comes first, and whichever restarts.

use flowd::flows::{Counters, EndReason};
use flowd_tests::{
    counters::{Baseline, explained_by_wireguard, wireguard_bytes},
    traffic::{Load, tcp},
    wait, wireguard,
};

use crate::gateway::{Gateway, PEER};
use crate::operator::{attached, flows, json, read};

/// Messages of WireGuard itself in a short test, at most.
const OWN_MESSAGES: u64 = 40;
/// Payloads of what is known to the unit.
const PAYLOADS: [usize; 5] = [0, 1, 100, 1000, 1300];

pub(crate) fn one_that_wg_quick_makes_later_is_watched(gateway: &mut Gateway) {
    read(&["systemctl", "enable", "--now", "wg-quick@wg0"]);
    assert_eq!(attached().attached_by, "clsact");
    wait::until(wait::SOON, "the comment in wg0.conf is the peer's name", || {
        let peers: flowd::wire::PeerList = json(&["peers"]);
        peers.peers.iter().any(|peer| peer.identity.name == PEER)
    });
    gateway.pair(0).exchange(&[1]);
}

pub(crate) fn sums_are_those_of_wireguard_to_the_byte(gateway: &mut Gateway) {
    let wg0 = Baseline::new(&gateway.here, "wg0");
    let [rx_before, tx_before] = transfer();
    let pair = gateway.pair(0);
    let load = pair.exchange(&PAYLOADS);
    let port = pair.ports().0.to_string();
    wait::until_equal("the flow", &vec![Load::both(load, load)], || {
        flows(&["--src-port", &port]).iter().map(|flow| flow.total).collect()
    });
    let peer = flows(&["--src-port", &port]).remove(0).peer.expect("it is a peer's");
    assert_eq!(peer.name, PEER);

    // The device and the peer have those packets, wrapped, and whole messages of WireGuard's own.
    let outer: u64 = PAYLOADS.iter().map(|payload| wireguard_bytes(28 + *payload as u64)).sum();
    let device = wg0.since();
    for (packets, bytes) in
        [(device.rx_packets, device.rx_bytes), (device.tx_packets, device.tx_bytes)]
    {
        let own = (packets.checked_sub(load.packets), bytes.checked_sub(outer));
        let (Some(own_packets), Some(own_bytes)) = own else { panic!("{device:?}, {load:?}") };
        assert!(explained_by_wireguard(own_packets, own_bytes), "{own_packets} {own_bytes}");
    }
    let [rx, tx] = transfer();
    for bytes in [rx - rx_before, tx - tx_before] {
        let own = bytes.checked_sub(outer).unwrap_or_else(|| panic!("{bytes} of {outer}"));
        let is_whole = (0..OWN_MESSAGES).any(|packets| explained_by_wireguard(packets, own));
        assert!(is_whole, "{own} bytes that no messages of WireGuard have");
    }

    let (near, far) = gateway.ends();
    let mut connection = tcp::Connection::open(near, far, 0);
    let port = connection.ports().1.to_string();
    connection.transfer(50_000, 100_000);
    connection.close();
    wait::until_equal("the connection", &vec![Some(EndReason::Fin)], || {
        flows(&["--dst-port", &port]).iter().map(|flow| flow.end_reason).collect()
    });
    let Counters { rx_bytes, tx_bytes, .. } = flows(&["--dst-port", &port]).remove(0).total;
    assert!(rx_bytes > 50_000 && tx_bytes > 100_000, "{rx_bytes} {tx_bytes}");
}

/// Bytes of the peer, received and sent, as `wg show` has them.
fn transfer() -> [u64; 2] {
    let dump = read(&["wg", "show", "wg0", "dump"]);
    let line = dump.lines().find(|line| line.contains("10.8.0.2/32")).expect("the peer");
    let fields: Vec<&str> = line.split('\t').collect();
    [5, 6].map(|index| fields[index].parse().expect("a number"))
}

pub(crate) fn one_that_wg_quick_makes_again_is_watched(gateway: &mut Gateway) {
    let old = attached();
    let pair = gateway.pair(0);
    let load = pair.exchange(&PAYLOADS);
    let port = pair.ports().0.to_string();
    read(&["systemctl", "restart", "wg-quick@wg0"]);
    let new = wait::until_some(wait::SOON, "flowd watches the new wg0", || {
        Some(attached()).filter(|new| new.ifindex != old.ifindex)
    });
    wait::until_equal("the flow of the old one", &vec![Load::both(load, load)], || {
        let flows = flows(&["--src-port", &port]);
        let ended =
            flows.iter().filter(|flow| flow.end_reason == Some(EndReason::InterfaceRemoved));
        ended.map(|flow| flow.total).collect()
    });
    // The peer would notice by itself after 15 seconds only.
    let key = read(&["wg", "show", "wg0", "public-key"]);
    wireguard::remove_peer(&gateway.peer, "wg0", key.trim());
    let endpoint = Some("172.31.0.1:51820");
    wireguard::set_peer(&gateway.peer, "wg0", key.trim(), "10.8.0.0/24", endpoint);
    let pair = gateway.pair(0);
    let load = pair.exchange(&PAYLOADS);
    let port = pair.ports().0.to_string();
    wait::until_equal("the flow of the new one", &vec![Load::both(load, load)], || {
        flows(&["--src-port", &port]).iter().map(|flow| flow.total).collect()
    });
    assert!(new.since > old.since);
}
