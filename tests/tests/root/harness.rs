//! The measure itself: what the tests call exact is what the interface counts. Without flowd.

use std::net::IpAddr;

use flowd_tests::{
    counters::Baseline,
    skip,
    topology::{LAN_V4, LAN_V6, Topology},
    traffic::{Load, packet, raw, tcp, udp},
    wait,
    wireguard::{Backend, backend},
};

#[test]
fn every_kind_of_traffic_is_predicted_to_the_unit() {
    if backend() == Backend::Kernel {
        skip!("the kernel's device counts WireGuard's own overhead too");
    }
    let net = Topology::new(1);
    let peer = &net.peers[0];
    for (near, far) in [
        (IpAddr::from(peer.v4), net.gateway_v4(peer)),
        (IpAddr::from(peer.v6), net.gateway_v6(peer)),
    ] {
        let (near_end, far_end) = ((&peer.namespace, near), (&net.gateway, far));
        let wg0 = || Baseline::new(&net.gateway, "wg0");

        let before = wg0();
        let load = udp::Pair::new(near_end, far_end).exchange(&[0, 1, 500, 1300]);
        before.expect(Load::both(load, load));

        let before = wg0();
        let load = udp::Pair::new(near_end, far_end).exchange(&[1500, 4000, 20_000]);
        before.expect(Load::both(load, load));

        let before = wg0();
        let load = raw::ping(near_end, far, 77, 5, 100);
        before.expect(Load::both(load, load));

        let before = wg0();
        let pair = udp::Pair::new(near_end, far_end);
        if let Some(load) = pair.send_segmented(1000, 20) {
            before.expect(Load::both(load, Load::default()));
        }
    }
}

#[test]
fn packets_by_hand_arrive_as_they_were_written() {
    if backend() == Backend::Kernel {
        skip!("the kernel's device counts WireGuard's own overhead too");
    }
    let net = Topology::new(1);
    let peer = &net.peers[0];
    let (IpAddr::V4(gateway_v4), IpAddr::V6(gateway_v6)) =
        (net.gateway_v4(peer), net.gateway_v6(peer))
    else {
        panic!("one of each family")
    };
    let (v4, v6) = (peer.v4, peer.v6);
    let udp_v4 = packet::udp(v4.into(), gateway_v4.into(), (4000, 4001), b"four");
    let udp_v6 = packet::udp(v6.into(), gateway_v6.into(), (4000, 4001), b"six");
    let _v4 = udp::bind((&net.gateway, gateway_v4.into()), 4001);
    let _v6 = udp::bind((&net.gateway, gateway_v6.into()), 4001);
    let cases: [(&str, IpAddr, Vec<u8>); 4] = [
        ("options", gateway_v4.into(), packet::ipv4(v4, gateway_v4, 17, &[1; 8], &udp_v4)),
        ("no extension", gateway_v6.into(), packet::ipv6(v6, gateway_v6, 17, &[], &udp_v6)),
        ("hop by hop", gateway_v6.into(), packet::ipv6(v6, gateway_v6, 17, &[0], &udp_v6)),
        ("two", gateway_v6.into(), packet::ipv6(v6, gateway_v6, 17, &[0, 60], &udp_v6)),
    ];
    for (what, to, bytes) in cases {
        let before = Baseline::new(&net.gateway, "wg0");
        raw::RawSocket::whole(&peer.namespace, to).send_to(&bytes, to);
        println!("{what}");
        before.expect(Load::both(Load::of(1, bytes.len() as u64), Load::default()));
    }
    // A packet that ends in the middle of its UDP header.
    let before = Baseline::new(&net.gateway, "wg0");
    raw::inject(&peer.namespace, "wg0", &packet::ipv4(v4, gateway_v4, 17, &[], &[0, 1, 2]));
    before.expect(Load::both(Load::of(1, 23), Load::default()));
}

#[test]
fn a_bulk_transfer_from_behind_the_gateway_crosses_the_tunnel() {
    let mut net = Topology::new(1);
    net.add_lan();
    let (peer, lan) = (&net.peers[0], net.lan.as_ref().expect("added"));
    for (near, far) in
        [(IpAddr::from(peer.v4), IpAddr::from(LAN_V4)), (peer.v6.into(), LAN_V6.into())]
    {
        let before = Baseline::new(&net.gateway, "wg0");
        let mut connection = tcp::Connection::open((&peer.namespace, near), (lan, far), 8080);
        connection.transfer(10_000, 2_000_000);
        connection.close();
        wait::until(wait::SOON, "the payload is in the counters", || {
            let now = before.since();
            now.rx_bytes > 10_000 && now.tx_bytes > 2_000_000
        });
    }
}

#[test]
fn an_interface_can_go_and_come_back() {
    let mut net = Topology::with(&[("wg0", 1), ("wg1", 1)]);
    net.lower("wg0");
    net.raise("wg0");
    net.reconnect(&net.peers[0]);
    net.warm_up_all();
}
