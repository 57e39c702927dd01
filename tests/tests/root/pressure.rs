//! More than the gateway was made for: forwarding goes on, sums stay right, memory stays bounded,
//! the daemon answers. Where CPUs are emulated there is less of everything, by the second number of
//! each `machine::size`.

mod flood;
mod million;
mod peers;
mod readers;
mod requests;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use flowd::{flows::Counters, wire::InterfaceStatus};
use flowd_tests::{
    counters::{Baseline, link_drops},
    daemon::Daemon,
    flowctl::Flowctl,
    topology::{Peer, Topology},
    traffic::flood::{Flood, Packet},
    wait,
    wireguard::{Backend, backend},
};

use crate::books::assert_balanced;

const MIB: u64 = 1 << 20;

/// Where packets go that nobody answers: the gateway drops them.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 0);

/// A gateway with so many peers, and the way to [`NOWHERE`].
fn gateway(peers: u8) -> Topology {
    let net = Topology::new(peers);
    net.gateway.ip(&format!("route add blackhole {NOWHERE}/16"));
    net
}

/// Flow `number` of many to nowhere, up to 2^22.
fn nowhere(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from(u32::from(NOWHERE) + (number >> 14));
    SocketAddrV4::new(address, 1_024 + (number & 0x3fff) as u16)
}

/// One datagram of each flow `numbers` to nowhere, as fast as the tunnel takes them. How many of
/// them arrived.
fn fill(net: &Topology, peer: &Peer, numbers: std::ops::Range<u32>) -> u64 {
    let arrived = Baseline::new(&net.gateway, &peer.interface);
    let packets = numbers.map(|number| Packet::datagram(40_000, nowhere(number)));
    let flood = Flood::new(&peer.namespace, peer.v4);
    flood.send_paced(packets, || arrived.since().rx_packets);
    arrived.since().rx_packets
}

/// [`assert_balanced`] where the device may have had no room for what flowd saw on its way there.
fn assert_sums(net: &Topology, ctl: &Flowctl<'_>) -> InterfaceStatus {
    if backend() == Backend::Userspace {
        assert_eq!(link_drops(&net.gateway, "wg0"), 0, "the queue was long enough");
        return assert_balanced(ctl, "wg0");
    }
    let status = || ctl.interface("wg0").expect("flowd knows the interface");
    wait::until(wait::SOON, "flowd and the device agree", || {
        let InterfaceStatus { seen, device, .. } = status();
        let drops = link_drops(&net.gateway, "wg0");
        device.rx_packets >= seen.rx_packets && device.tx_packets + drops >= seen.tx_packets
    });
    let now = status();
    let uncounted =
        now.uncounted.iter().fold(Counters::default(), |sum, reason| sum + reason.counters);
    assert_eq!(now.flows + now.overflow + uncounted, now.seen, "{now:#?}");
    now
}

/// The daemon never took more memory than this over what it took `idle`.
fn assert_memory(daemon: &Daemon, idle_bytes: u64, most_bytes: u64) {
    let peak_bytes = daemon.usage().peak_bytes;
    let (grown, most) = (peak_bytes.saturating_sub(idle_bytes) / MIB, most_bytes / MIB);
    println!("memory: {} MiB idle, {grown} MiB more at its peak", idle_bytes / MIB);
    assert!(grown <= most, "{grown} MiB more than idle; {most} are the limit");
}

/// What `work` returns, and how long it took, which is printed.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    let took = begun.elapsed();
    println!("{what}: {} ms", took.as_millis());
    (result, took)
}
