//! Interfaces: what crossed them, and what of it is in no flow.
//!
//! A number tells interfaces of one name apart: counters of one that was made anew begin at zero.

use flowd_common::counter::Counter;

use super::text::{Kind, Text, seconds};
use crate::{flows::Counters, wire::InterfaceStatus};

pub(super) fn render(text: &mut Text, interfaces: &[InterfaceStatus]) {
    both(text, interfaces, ("flowd_packets_total", "flowd_bytes_total"), "seen", |i| i.seen);
    let names = ("flowd_overflow_packets_total", "flowd_overflow_bytes_total");
    let what = "in no flow but summed per peer, because the table was full";
    both(text, interfaces, names, what, |interface| interface.overflow);
    let names = ("flowd_dropped_packets_total", "flowd_dropped_bytes_total");
    both(text, interfaces, names, "dropped by the policy", |interface| interface.dropped);
    uncounted(text, interfaces);
    let names = ("flowd_device_packets_total", "flowd_device_bytes_total");
    let what = "that the device itself counted since flowd attached";
    both(text, interfaces, names, what, |interface| interface.device);
    let name = "flowd_interface_attached";
    text.family(Kind::Gauge, name, "1 while flowd's programs hang on the interface.");
    for interface in interfaces {
        let ifindex = interface.ifindex.to_string();
        let by = if interface.attached_by == "detached" { "" } else { &interface.attached_by };
        let labels = [("interface", &*interface.name), ("ifindex", &ifindex), ("by", by)];
        text.sample(name, &labels, u64::from(!by.is_empty()));
    }
    let name = "flowd_interface_attached_timestamp_seconds";
    text.family(Kind::Gauge, name, "Since when flowd counts on the interface.");
    for interface in interfaces {
        let ifindex = interface.ifindex.to_string();
        let labels = [("interface", &*interface.name), ("ifindex", &ifindex)];
        text.sample(name, &labels, seconds(interface.since));
    }
    let name = "flowd_interface_peers";
    text.family(Kind::Gauge, name, "Peers configured on the interface.");
    for interface in interfaces {
        let ifindex = interface.ifindex.to_string();
        let labels = [("interface", &*interface.name), ("ifindex", &ifindex)];
        text.sample(name, &labels, interface.peers);
    }
}

/// Packets and bytes of every interface.
fn both(
    text: &mut Text,
    interfaces: &[InterfaceStatus],
    (packets, bytes): (&str, &str),
    what: &str,
    of: impl Fn(&InterfaceStatus) -> Counters,
) {
    text.family(Kind::Counter, packets, &format!("Packets {what}."));
    for interface in interfaces {
        let Counters { rx_packets, tx_packets, .. } = of(interface);
        directions(text, packets, interface, &[], (rx_packets, tx_packets));
    }
    text.family(Kind::Counter, bytes, &format!("Bytes {what}, IP headers included."));
    for interface in interfaces {
        let Counters { rx_bytes, tx_bytes, .. } = of(interface);
        directions(text, bytes, interface, &[], (rx_bytes, tx_bytes));
    }
}

/// Every reason, also those that never were.
fn uncounted(text: &mut Text, interfaces: &[InterfaceStatus]) {
    let name = "flowd_uncounted_packets_total";
    text.family(Kind::Counter, name, "Packets in no flow and no sum of a peer, by reason.");
    for interface in interfaces {
        for reason in Counter::UNCOUNTED.map(Counter::name) {
            let tally = interface.uncounted.iter().find(|tally| tally.reason == reason);
            let Counters { rx_packets, tx_packets, .. } =
                tally.map_or_else(Counters::default, |tally| tally.counters);
            directions(text, name, interface, &[("reason", reason)], (rx_packets, tx_packets));
        }
    }
}

fn directions(
    text: &mut Text,
    name: &str,
    interface: &InterfaceStatus,
    more: &[(&str, &str)],
    (rx, tx): (u64, u64),
) {
    let ifindex = interface.ifindex.to_string();
    for (direction, value) in [("rx", rx), ("tx", tx)] {
        let mut labels =
            vec![("interface", &*interface.name), ("ifindex", &ifindex), ("direction", direction)];
        labels.extend(more);
        text.sample(name, &labels, value);
    }
}
