//! A SYN flood and a port scan from one peer, beside a peer that behaves.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use flowd::flows::Counters;
use flowd_tests::{
    counters::link_counters,
    machine,
    site::Settings,
    topology::{LAN_V4, Peer, Topology},
    traffic::{
        Load,
        flood::{Flood, Packet},
        tcp, udp,
    },
    wait,
};

use super::{MIB, assert_memory, assert_sums, gateway, nowhere};
use crate::books::flowd_on;

/// Connections of the peer that behaves while the flood goes on.
const CONNECTIONS: usize = 5;
/// A tunnel through which nothing came for so long has nothing left to bring.
const QUIET: Duration = Duration::from_millis(700);
/// Packets between two looks at whether the flood may end.
const STEP: u32 = 1_024;
/// Source ports of the scan, and of the flood.
const SOURCES: [u16; 2] = [50_000, 50_001];

#[test]
fn a_flood_and_a_scan_hinder_nobody_and_are_counted_to_the_packet() {
    let packets = machine::size(200_000, 10_000);
    let mut net = gateway(2);
    // What the gateway answers to the scan must not find its own queue full.
    net.gateway.ip("link set wg0 txqueuelen 200000");
    net.add_lan();
    let settings = Settings {
        table_size: 8_192,
        idle_timeout_ms: 3_000,
        tail_records: flowd::store::TAIL_RECORDS,
        ..Settings::default()
    };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let idle = daemon.usage();
    let (bad, good) = (&net.peers[0], &net.peers[1]);

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&net, bad, packets, &done));
        // The daemon answers, and has seen that the table is full.
        wait::until(wait::SOON, "the table is full", || {
            let status = ctl.status();
            let seen = status.interfaces.iter().find(|interface| interface.name == "wg0");
            seen.is_some_and(|wg0| wg0.overflow.rx_packets > 0)
        });
        let lan = (net.lan.as_ref().expect("added"), LAN_V4.into());
        for _ in 0..CONNECTIONS {
            let mut connection = tcp::Connection::open((&good.namespace, good.v4.into()), lan, 0);
            connection.transfer(1_000, 1_000);
            connection.close();
            ctl.status();
        }
        assert!(!flood.is_finished(), "all that was during the flood");
        done.store(true, Ordering::Relaxed);
        println!("{} packets of the flood were sent", flood.join().expect("it ends well"));
    });

    wait_for_quiet(&net);
    let status = assert_sums(&net, &ctl);
    println!("seen: {:?}; found the table full: {:?}", status.seen, status.overflow);
    assert!(status.overflow.rx_packets > 0, "more flows than fit: {status:?}");
    // Flows, buckets and what was no flow: everything that was seen, once.
    wait::until_equal("the summary has every packet", &(status.flows + status.overflow), || {
        ctl.summary().counters
    });
    assert_memory(&daemon, idle.rss_bytes, 48 * MIB);

    recovers(&net, &ctl);
    assert_sums(&net, &ctl);
    daemon.stop();
}

/// Until nothing of the flood is under way any more.
fn wait_for_quiet(net: &Topology) {
    let mut before = (Counters::default(), Instant::now());
    wait::until(wait::SOON, "the last packets arrive", || {
        let now = link_counters(&net.gateway, "wg0");
        if now != before.0 {
            before = (now, Instant::now());
        }
        before.1.elapsed() > QUIET
    });
}

/// At least `packets`, of as many flows, until `done`; every other step scans the gateway's ports.
fn flood(net: &Topology, peer: &Peer, packets: u32, done: &AtomicBool) -> u32 {
    let flood = Flood::new(&peer.namespace, peer.v4);
    let gateway: Ipv4Addr = net.gateway_v4(peer).to_string().parse().expect("it is IPv4");
    let mut sent = 0;
    while sent < packets || !done.load(Ordering::Relaxed) {
        flood.send((sent..sent + STEP).map(|number| match number / STEP % 2 {
            0 => Packet::syn(SOURCES[0], SocketAddrV4::new(gateway, number as u16)),
            _ => Packet::syn(SOURCES[1], nowhere(number & 0x3f_ffff)),
        }));
        sent += STEP;
    }
    sent
}

/// When the flood's flows have ended, a new one gets its own entry and its own record again.
fn recovers(net: &Topology, ctl: &flowd_tests::flowctl::Flowctl<'_>) {
    // A connection whose first FIN found the table full may stay half closed for an hour.
    wait::until(wait::SOON, "the flows of the flood end", || {
        SOURCES
            .iter()
            .all(|port| ctl.flows(&["--state", "open", "--port", &port.to_string()]).is_empty())
    });
    let before = ctl.interface("wg0").expect("attached").overflow;
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::new(ends.0, ends.1);
    let load = pair.exchange(&[100; 5]);
    let port = pair.ports().0.to_string();
    let flow = ctl.one_flow(&["--port", &port, "--protocol", "udp"], Load::both(load, load));
    assert!(!flow.overflow, "{flow:?}");
    assert_eq!(ctl.interface("wg0").expect("attached").overflow, before);
    assert_ne!(before, Counters::default());
}
