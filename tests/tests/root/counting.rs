//! Every kind of traffic is in the right flow, to the packet and byte.

use std::net::IpAddr;

use flowd::flows::{Counters, EndReason, Initiator};
use flowd::wire::InterfaceStatus;
use flowd_tests::{
    counters::{explained_by_wireguard, wireguard_bytes},
    site::Settings,
    skip,
    topology::{LAN_V4, Topology},
    traffic::{Load, packet, raw, tcp, udp},
    wait,
    wireguard::{self, Backend, backend},
};

use crate::books::{assert_balanced, assert_wrapped, flowd_on};

#[test]
fn udp_both_ways_is_one_flow() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    for (near, far) in
        [(IpAddr::from(peer.v4), net.gateway_v4(peer)), (peer.v6.into(), net.gateway_v6(peer))]
    {
        let (inside, gateway) = ((&peer.namespace, near), (&net.gateway, far));
        for (initiator, from, to) in
            [(Initiator::Peer, inside, gateway), (Initiator::Remote, gateway, inside)]
        {
            // The last one goes in fragments, which belong to the same flow.
            let pair = udp::Pair::new(from, to);
            let load = pair.exchange(&[0, 1, 700, 1300, 5000]);
            let port = pair.ports().0.to_string();
            let flow = ctl.one_flow(&["--port", &port], Load::both(load, load));
            assert_eq!(flow.initiator, initiator);
            assert_eq!((flow.src.ip, flow.dst.ip), (Some(from.1), Some(to.1)));
            assert_eq!(flow.protocol, "udp");
            assert_eq!(flow.peer.expect("its peer").name, "peer0");
            assert_eq!(flow.counters, flow.total);
        }
    }
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn echo_requests_and_replies_are_one_flow() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    for (near, far, protocol, request) in [
        (IpAddr::from(peer.v4), net.gateway_v4(peer), "icmp", 8),
        (peer.v6.into(), net.gateway_v6(peer), "icmpv6", 128),
    ] {
        let load = raw::ping((&peer.namespace, near), far, 4711, 5, 56);
        let flow = ctl.one_flow(&["--protocol", protocol], Load::both(load, load));
        assert_eq!(flow.icmp.map(|icmp| (icmp.r#type, icmp.code)), Some((request, 0)));
        assert_eq!((flow.src.port, flow.dst.port), (None, None));
    }
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn a_refused_datagram_and_its_error_are_two_flows() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let socket = udp::bind((&peer.namespace, peer.v4.into()), 0);
    socket.send_to(&[1; 100], (net.gateway_v4(peer), 9)).expect("it leaves");
    ctl.one_flow(&["--port", "9"], Load::both(Load::of(1, 128), Load::default()));
    let error = Load::both(Load::default(), Load::of(1, 20 + 8 + 128));
    let flow = ctl.one_flow(&["--protocol", "icmp"], error);
    assert_eq!(flow.icmp.map(|icmp| (icmp.r#type, icmp.code)), Some((3, 3)));
    daemon.stop();
}

#[test]
fn every_protocol_and_every_header_is_counted() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let (IpAddr::V4(to4), IpAddr::V6(to6)) = (net.gateway_v4(peer), net.gateway_v6(peer)) else {
        panic!("one of each family")
    };
    let (v4, v6) = (peer.v4, peer.v6);
    let udp4 = packet::udp(v4.into(), to4.into(), (4000, 4004), b"four");
    let udp6 = packet::udp(v6.into(), to6.into(), (4000, 4006), b"six");
    let _listen4 = udp::bind((&net.gateway, to4.into()), 4004);
    let _listen6 = udp::bind((&net.gateway, to6.into()), 4006);
    let _listeners =
        [253, 47].map(|number| raw::RawSocket::protocol((&net.gateway, to4.into()), number));
    let cases: [(&[&str], IpAddr, Vec<u8>); 4] = [
        (&["--port", "4004"], to4.into(), packet::ipv4(v4, to4, 17, &[1; 8], &udp4)),
        (&["--port", "4006"], to6.into(), packet::ipv6(v6, to6, 17, &[0, 60], &udp6)),
        (&["--protocol", "253"], to4.into(), packet::ipv4(v4, to4, 253, &[], &[9; 40])),
        (&["--protocol", "gre"], to4.into(), packet::ipv4(v4, to4, 47, &[], &[0; 40])),
    ];
    for (filter, to, bytes) in cases {
        raw::RawSocket::whole(&peer.namespace, to).send_to(&bytes, to);
        let load = Load::of(1, bytes.len() as u64);
        ctl.one_flow(filter, Load::both(load, Load::default()));
    }
    raw::inject(&peer.namespace, "wg0", &packet::ipv4(v4, to4, 17, &[], &[0, 1, 2]));
    wait::until(wait::SOON, "the truncated packet is told", || {
        let status = ctl.interface("wg0").expect("attached");
        status
            .uncounted
            .iter()
            .any(|reason| reason.reason == "truncated" && reason.counters.rx_bytes == 23)
    });
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn tcp_tells_who_opened_it_and_how_it_ended() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let (inside, gateway) =
        ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    for (port, from, to, initiator, end) in [
        (8001, inside, gateway, Initiator::Peer, EndReason::Fin),
        (8002, gateway, inside, Initiator::Remote, EndReason::Fin),
        (8003, inside, gateway, Initiator::Peer, EndReason::Rst),
    ] {
        let mut connection = tcp::Connection::open(from, to, port);
        connection.transfer(10_000, 200_000);
        match end {
            EndReason::Rst => connection.reset(),
            _ => connection.close(),
        }
        let flow = wait::until_some(wait::SOON, "the flow ends", || {
            let port = port.to_string();
            ctl.flows(&["--port", &port]).into_iter().find(|flow| flow.end_reason.is_some())
        });
        assert_eq!((flow.initiator, flow.end_reason), (initiator, Some(end)));
        assert!(flow.total.bytes() > 210_000, "{flow:?}");
        assert_ne!(flow.tcp_flags.rx & flow.tcp_flags.tx & 0x02, 0, "SYN both ways");
    }
    let seen = assert_balanced(&ctl, "wg0").seen;
    let flows = ctl.flows(&[]);
    let sum = flows.iter().fold(Counters::default(), |sum, flow| sum + flow.total);
    assert_eq!(sum, seen, "the three connections are all there was");
    daemon.stop();
}

#[test]
fn super_packets_count_as_their_segments() {
    let mut net = Topology::new(1);
    net.add_lan();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let (peer, lan) = (&net.peers[0], net.lan.as_ref().expect("added"));
    let (inside, outside) = ((&peer.namespace, peer.v4.into()), (lan, LAN_V4.into()));
    let before = [&peer.namespace, lan].map(tcp::SegmentsSent::of);
    let mut connection = tcp::Connection::open(inside, outside, 8080);
    connection.transfer(5_000_000, 20_000_000);
    connection.close();
    let status = assert_balanced(&ctl, "wg0");
    assert!(status.seen.tx_bytes > 20_000_000 && status.seen.rx_bytes > 5_000_000, "{status:?}");

    let [by_peer, by_lan] = [(&peer.namespace, before[0]), (lan, before[1])]
        .map(|(namespace, before)| tcp::SegmentsSent::of(namespace).since(before));
    assert_eq!(status.seen.tx_packets, by_lan.first + by_lan.again, "every segment to the peer");
    assert!(status.seen.rx_packets <= by_peer.first + by_peer.again, "{status:?} of {by_peer:?}");
    assert!(status.coalesced.tx_packets > 0, "segmentation offload was at work");
    if backend() == Backend::Kernel {
        assert!(status.coalesced.rx_packets > 0, "receive offload was at work");
        assert_every_packet_is_wrapped(&status);
    }
    daemon.stop();
}

/// On kernel WireGuard: the device counted every packet that flowd saw, before receive offload put
/// some together, with 32 to 47 bytes around it, and a few messages of WireGuard itself.
fn assert_every_packet_is_wrapped(status: &InterfaceStatus) {
    let InterfaceStatus { seen, device, .. } = status;
    let own = device.rx_packets.checked_sub(seen.rx_packets).expect("no fewer than flowd saw");
    assert!(own <= 32, "{own} handshakes and keepalives in some seconds");
    let least = seen.rx_bytes + 32 * device.rx_packets;
    let most = seen.rx_bytes + 47 * seen.rx_packets + 148 * own;
    assert!((least..=most).contains(&device.rx_bytes), "{least} {most} {status:?}");
}

#[test]
fn the_kernels_device_counts_what_wireguard_adds() {
    if backend() == Backend::Userspace {
        skip!("wireguard-go's device counts inner packets");
    }
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[100; 50]);
    let status = assert_balanced(&ctl, "wg0");
    assert_eq!(status.seen, Load::both(load, load));
    assert_wrapped((status.device.rx_packets, status.device.rx_bytes), &[(50, 128)]);
    assert_wrapped((status.device.tx_packets, status.device.tx_bytes), &[(50, 128)]);
    daemon.stop();
}

#[test]
fn wireguards_own_counters_explain_what_flowd_saw() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let transfer = || {
        let peers = wireguard::peers(&net.gateway, "wg0");
        (peers[0].rx_bytes, peers[0].tx_bytes)
    };
    let before = transfer();
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[100; 50]);
    assert_eq!(load, Load { packets: 50, bytes: 50 * 128 });
    ctl.one_flow(&[], Load::both(load, load));
    let after = transfer();
    for grown in [after.0 - before.0, after.1 - before.1] {
        // What is left are handshakes and keepalives.
        let own = grown.checked_sub(50 * wireguard_bytes(128)).expect("every packet was carried");
        assert!((0..8).any(|messages| explained_by_wireguard(messages, own)), "{own} bytes");
    }
    wait::until(wait::SOON, "flowctl peers shows WireGuard's counters", || {
        let shown = ctl.peers().peers[0].wireguard;
        (shown.rx_bytes, shown.tx_bytes) == transfer()
    });
    daemon.stop();
}
