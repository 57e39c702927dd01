//! What comes and goes while flowd runs, and what does not fit.

use flowd::flows::{Counters, EndReason};
use flowd_tests::{
    site::Settings,
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::books::{assert_balanced, flowd_on};

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let mut net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    for round in 0..2 {
        let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
        let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
        let port = 7000 + round;
        let load = udp::Pair::on_port(ends.0, ends.1, port).exchange(&[100; 3]);
        let filter = ["--port", &port.to_string()];
        ctl.one_flow(&filter, Load::both(load, load));
        assert_balanced(&ctl, "wg0");
        let before = ctl.attached("wg0").ifindex;

        net.lower("wg0");
        let ctl = site.flowctl(&net.gateway);
        wait::until_equal("flows end", &vec![Some(EndReason::InterfaceRemoved)], || {
            ctl.flows(&filter).iter().map(|flow| flow.end_reason).collect()
        });
        net.raise("wg0");
        let ctl = site.flowctl(&net.gateway);
        wait::until(wait::SOON, "flowd attaches to the new one", || {
            let now = ctl.attached("wg0");
            now.ifindex != before && now.peers == 1
        });
        net.reconnect(&net.peers[0]);
    }
    daemon.stop();
}

#[test]
fn peers_that_come_and_go_are_noticed() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[1]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::on_port(ends.0, ends.1, 7000).exchange(&[10; 3]);
    ctl.one_flow(&["--port", "7000"], Load::both(load, load));

    net.dismiss(peer);
    wait::until_equal("its flows end", &vec![Some(EndReason::PeerRemoved)], || {
        ctl.flows(&["--port", "7000"]).iter().map(|flow| flow.end_reason).collect()
    });
    assert!(ctl.peers().peers.iter().all(|known| known.identity.name != peer.name));

    net.admit(peer, &peer.allowed_ips());
    wait::until(wait::SOON, "it is known again", || {
        ctl.peers().peers.iter().any(|known| known.identity.name == peer.name)
    });
    net.reconnect(peer);
    let load = udp::Pair::on_port(ends.0, ends.1, 7001).exchange(&[10; 3]);
    let flow = ctl.one_flow(&["--port", "7001"], Load::both(load, load));
    assert_eq!(flow.peer.expect("its peer").name, peer.name);
    daemon.stop();
}

#[test]
fn two_interfaces_are_counted_apart() {
    let net = Topology::with(&[("wg0", 1), ("wg1", 1)]);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    for (peer, size) in net.peers.iter().zip([100, 200]) {
        let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
        let load = udp::Pair::new(ends.0, ends.1).exchange(&[size; 3]);
        let flow = ctl.one_flow(&["--peer", &peer.name], Load::both(load, load));
        assert_eq!(flow.interface, peer.interface);
        assert_eq!(assert_balanced(&ctl, &peer.interface).seen, Load::both(load, load));
    }
    daemon.stop();
}

#[test]
fn traffic_between_peers_is_a_flow_on_each_leg() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, from, to) = (site.flowctl(&net.gateway), &net.peers[0], &net.peers[1]);
    let ends = ((&from.namespace, from.v4.into()), (&to.namespace, to.v4.into()));
    let load = udp::Pair::on_port(ends.0, ends.1, 7000).exchange(&[100; 3]);
    let both = Load::both(load, load);
    wait::until_equal("one flow a leg", &vec![both; 2], || {
        ctl.flows(&["--port", "7000"]).iter().map(|flow| flow.total).collect()
    });
    let flows = ctl.flows(&["--port", "7000"]);
    let mut legs: Vec<_> =
        flows.iter().filter_map(|flow| flow.peer.as_ref().map(|peer| &peer.name)).collect();
    legs.sort();
    assert_eq!(legs, ["peer0", "peer1"]);
    for flow in &flows {
        assert_eq!(flow.src.peer.as_deref(), Some("peer0"));
        assert_eq!(flow.dst.peer.as_deref(), Some("peer1"));
    }
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn the_longest_prefix_owns_an_address() {
    let net = Topology::new(2);
    // peer0 has the whole network, peer1 still its own address in it.
    net.admit(&net.peers[0], "10.8.0.0/24");
    net.admit(&net.peers[1], &net.peers[1].allowed_ips());
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    for (peer, port) in net.peers.iter().zip([7000_u16, 7001]) {
        let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
        let load = udp::Pair::on_port(ends.0, ends.1, port).exchange(&[1]);
        let flow = ctl.one_flow(&["--port", &port.to_string()], Load::both(load, load));
        assert_eq!(flow.peer.expect("its peer").name, peer.name);
    }
    daemon.stop();
}

#[test]
fn what_does_not_fit_in_the_table_is_in_the_sum() {
    const FLOWS: u16 = 500;
    let net = Topology::new(1);
    let settings = Settings { table_size: 64, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = (0..FLOWS)
        .map(|_| udp::Pair::new(ends.0, ends.1).exchange(&[50]))
        .fold(Load::default(), |sum, load| sum + load);
    let sent = Load::both(load, load);
    wait::until_equal("everything was seen", &sent, || {
        ctl.interface("wg0").expect("attached").seen
    });
    let status = assert_balanced(&ctl, "wg0");
    assert!(status.overflow.packets() > 0, "{status:#?}");
    wait::until_equal("flows and overflow are all of it", &sent, || ctl.summary().counters);
    let flows = ctl.flows(&[]);
    let sum = flows.iter().fold(Counters::default(), |sum, flow| sum + flow.counters);
    assert_eq!(sum, sent);
    for flow in flows.iter().filter(|flow| flow.overflow) {
        assert_eq!(flow.peer.as_ref().map(|peer| peer.name.as_str()), Some("peer0"));
    }
    assert!(flows.iter().any(|flow| flow.overflow));
    daemon.stop();
}
