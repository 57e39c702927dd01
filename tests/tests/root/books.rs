//! What every test starts with and ends with: flowd on a gateway, and books that balance.

use flowd::flows::Counters;
use flowd::wire::InterfaceStatus;
use flowd_tests::{
    counters::explained_by_wireguard,
    flowctl::Flowctl,
    site::{Settings, Site},
    topology::Topology,
    wait,
    wireguard::{Backend, backend},
};

/// A site for `net` with these settings, and its daemon attached to every interface.
pub(crate) fn flowd_on(net: &Topology, settings: &Settings) -> (Site, flowd_tests::daemon::Daemon) {
    let site = Site::new(net, settings);
    let daemon = site.start(&net.gateway);
    for interface in net.interfaces.iter().filter(|interface| interface.link.is_some()) {
        site.flowctl(&net.gateway).attached(&interface.name);
    }
    (site, daemon)
}

/// Flows + overflow + uncounted = what flowd saw = what the device counted since it attached.
///
/// The kernel's device counts WireGuard's own messages and overhead too: there, only packets can
/// be compared from here, and they must not be fewer.
pub(crate) fn assert_balanced(ctl: &Flowctl<'_>, interface: &str) -> InterfaceStatus {
    let status = || ctl.interface(interface).expect("flowd knows the interface");
    wait::until(wait::SOON, "flowd and the device agree", || agree(&status()));
    let now = status();
    let uncounted =
        now.uncounted.iter().fold(Counters::default(), |sum, reason| sum + reason.counters);
    assert_eq!(now.flows + now.overflow + uncounted, now.seen, "{now:#?}");
    now
}

/// Each direction by itself: a device counts the buffers of super-packets or their segments.
fn agree(status: &InterfaceStatus) -> bool {
    let InterfaceStatus { seen, device, coalesced, dropped, .. } = status;
    // What was dropped on the way to the device, it has not seen.
    let seen = &Counters {
        tx_packets: seen.tx_packets - dropped.tx_packets,
        tx_bytes: seen.tx_bytes - dropped.tx_bytes,
        ..*seen
    };
    let rx = |counters: &Counters| (counters.rx_packets, counters.rx_bytes);
    let tx = |counters: &Counters| (counters.tx_packets, counters.tx_bytes);
    let buffers = *device + *coalesced;
    match backend() {
        Backend::Userspace => {
            [rx(device), rx(&buffers)].contains(&rx(seen))
                && [tx(device), tx(&buffers)].contains(&tx(seen))
        }
        Backend::Kernel => {
            device.rx_packets >= seen.rx_packets && device.tx_packets >= seen.tx_packets
        }
    }
}

/// On kernel WireGuard: the device's bytes are those of `inner`, given as (packets, length of
/// each), as WireGuard wraps them, and whole messages of its own.
pub(crate) fn assert_wrapped(device: (u64, u64), inner: &[(u64, u64)]) {
    let packets: u64 = inner.iter().map(|(packets, _)| packets).sum();
    let bytes: u64 = inner
        .iter()
        .map(|(packets, length)| packets * flowd_tests::counters::wireguard_bytes(*length))
        .sum();
    let own = (device.0.checked_sub(packets), device.1.checked_sub(bytes));
    let (Some(own_packets), Some(own_bytes)) = own else {
        panic!("the device counted {device:?}, less than {packets} packets of {bytes} bytes")
    };
    assert!(explained_by_wireguard(own_packets, own_bytes), "{own_packets} {own_bytes}");
}
