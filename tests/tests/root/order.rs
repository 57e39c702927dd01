//! flowd among other programs on the same interface: `datapath.order`.

use std::net::{SocketAddr, UdpSocket};

use flowd::wire::{InterfaceStatus, ProgramStatus};
use flowd_common::counter::Direction;
use flowd_tests::{
    flowctl::Flowctl,
    neighbour::{Action, Neighbour, Place},
    site::{Settings, Site},
    skip,
    topology::Topology,
    wait,
};

const PACKETS: u64 = 3;

/// The names of the programs, flowd's as `flowd`.
fn names(programs: &[ProgramStatus]) -> Vec<&str> {
    let name = |program| match program {
        &ProgramStatus { own: true, .. } => "flowd",
        ProgramStatus { name, .. } => name.as_deref().unwrap_or("?"),
    };
    programs.iter().map(name).collect()
}

/// Sends datagrams through the tunnel to a port where nobody listens, and waits until the gateway's
/// device has had them. What flowd has counted of them.
fn counted(net: &Topology, ctl: &Flowctl<'_>, port: u16) -> u64 {
    let peer = &net.peers[0];
    let received = |status: InterfaceStatus| status.device.rx_packets;
    let before = received(ctl.attached("wg0"));
    let from = SocketAddr::new(peer.v4.into(), 0);
    let socket = peer.namespace.run(|| UdpSocket::bind(from)).expect("a socket");
    for _ in 0..PACKETS {
        socket.send_to(b"hello", (net.gateway_v4(peer), port)).expect("a route");
    }
    wait::until(wait::SOON, "the device has had them", || {
        received(ctl.attached("wg0")) >= before + PACKETS
    });
    let flows = ctl.flows(&["--dst-port", &port.to_string(), "--protocol", "udp"]);
    flows.iter().map(|flow| flow.total.rx_packets).sum()
}

#[test]
fn flowd_hangs_where_it_is_told_and_counts_what_comes_there() {
    let (next, ingress) = (Action::Next, Direction::Ingress);
    for (order, place) in [("first", Place::Last), ("last", Place::First)] {
        let net = Topology::new(1);
        let Ok(_neighbour) = Neighbour::new(&net.gateway, "wg0", ingress, next, Place::First)
        else {
            skip!("the kernel has no tcx");
        };
        let site = Site::new(&net, &Settings::default());
        let text = site.config(&Settings::default());
        site.configure(&format!("{text}order = \"{order}\"\n"));
        let daemon = site.start(&net.gateway);
        let ctl = site.flowctl(&net.gateway);
        let status = ctl.attached("wg0");
        let expected = match order {
            "first" => ["flowd", "neighbour"],
            _ => ["neighbour", "flowd"],
        };
        assert_eq!(names(&status.ingress), expected);
        assert_eq!(names(&status.egress), ["flowd"]);
        let told = String::from_utf8(ctl.run(&["status"]).stdout).expect("it is text");
        let told = told.lines().find(|line| line.contains("wg0: on ingress run "));
        let (before, behind) = told.expect("it is told").split_once(", then ").expect("of two");
        let own = if order == "first" { before } else { behind };
        assert!(own.ends_with("flowd"), "{before}, then {behind}");
        assert_eq!(counted(&net, &ctl, 7000), PACKETS, "{order}, a program that looks on");
        let is_first = order == "first";
        let seen = if is_first { PACKETS } else { 0 };
        for (action, port) in [(Action::Drop, 7001), (Action::Pass, 7002)] {
            let other = Neighbour::new(&net.gateway, "wg0", ingress, action, place);
            let other = other.expect("the kernel has tcx");
            assert_eq!(counted(&net, &ctl, port), seen, "{order}, {action:?}");
            drop(other);
        }
        assert!(!daemon.log().contains("datapath.order"), "{}", daemon.log());
        daemon.stop();

        // What stays, stays in its place, and that is told.
        let other = if is_first { "last" } else { "first" };
        site.configure(&format!("{text}order = \"{other}\"\n"));
        let daemon = site.start(&net.gateway);
        assert_eq!(names(&ctl.attached("wg0").ingress), expected);
        assert!(daemon.log().contains("`datapath.order`"), "{}", daemon.log());
        daemon.stop();
        let detached = site.flowd(&net.gateway).arg("detach").output().expect("flowd is built");
        assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
        let daemon = site.start(&net.gateway);
        let moved: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(names(&ctl.attached("wg0").ingress), moved);
        daemon.stop();
    }
}
