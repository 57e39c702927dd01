//! Ten thousand peers.

use std::{fmt::Write as _, fs, thread, time::Duration};

use flowd_tests::{
    machine,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, udp},
};

use super::{MIB, assert_memory, timed};
use crate::books::assert_balanced;

/// How long the idle daemon is watched, which is no wait for anything.
const WATCHED: Duration = Duration::from_secs(4);

#[test]
fn ten_thousand_peers_are_told_apart() {
    let peers: u32 = machine::size(10_000, 2_000);
    let net = Topology::new(1);
    add_strangers(&net, peers - 1);
    let site = Site::new(&net, &Settings::default());
    let (daemon, _) = timed("start", || site.start(&net.gateway));
    let ctl = site.flowctl(&net.gateway);
    timed("attached", || ctl.attached("wg0"));
    let idle = daemon.usage();

    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[100; 10]);
    let flow = ctl.one_flow(&[], Load::both(load, load));
    assert_eq!(flow.peer.expect("its peer").name, peer.name);

    let (list, _) = timed("flowctl peers", || ctl.peers().peers);
    assert_eq!(list.len(), peers as usize);
    let busy: Vec<_> = list.iter().filter(|peer| peer.counters != Default::default()).collect();
    assert_eq!(busy.len(), 1, "{busy:?}");
    assert_eq!((&busy[0].identity.name, busy[0].counters), (&peer.name, Load::both(load, load)));
    assert_balanced(&ctl, "wg0");

    let before = daemon.usage().cpu;
    thread::sleep(WATCHED);
    let cpu = daemon.usage().cpu - before;
    println!("idle with {peers} peers: {cpu:?} of CPU in {WATCHED:?}");
    assert_memory(&daemon, idle.rss_bytes, 64 * MIB);
    timed("stop", || daemon.stop());
}

/// Peers of the gateway that never come.
fn add_strangers(net: &Topology, count: u32) {
    let mut text = String::new();
    for number in 0..count {
        // In base64, 44 digits and letters of this form are 32 bytes: the key of somebody.
        let key = format!("{number:042}A=");
        let (high, low) = (number / 250, 1 + number % 250);
        writeln!(text, "[Peer]\nPublicKey = {key}\nAllowedIPs = 10.100.{high}.{low}/32\n")
            .expect("a string grows");
    }
    let file = net.gateway.sockets().join("peers.conf");
    fs::write(&file, text).expect("room");
    net.gateway.output("wg", &["addconf", "wg0", file.to_str().expect("UTF-8")]);
}
