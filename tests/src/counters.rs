//! What a device counted, as the kernel tells it, and how layer 3 relates to it.

use std::{fs, ops::Sub};

use flowd::flows::Counters;

use crate::{namespace::Namespace, wait};

/// Packets and bytes of `interface` since it exists, from `/proc/net/dev`.
pub fn link_counters(namespace: &Namespace, interface: &str) -> Counters {
    parse(&table(namespace), interface)
        .unwrap_or_else(|| panic!("{} has no interface {interface}", namespace.label()))
}

/// Packets for `interface` that it had no room for.
pub fn link_drops(namespace: &Namespace, interface: &str) -> u64 {
    let numbers = numbers(&table(namespace), interface).expect("the interface is there");
    numbers[11]
}

/// Whether `interface` is there.
pub fn link_exists(namespace: &Namespace, interface: &str) -> bool {
    parse(&table(namespace), interface).is_some()
}

fn table(namespace: &Namespace) -> String {
    namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is mounted"))
}

/// Eight columns of what was received, then eight of what was sent.
fn numbers(table: &str, interface: &str) -> Option<Vec<u64>> {
    let (_, numbers) = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == interface)?;
    Some(numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect())
}

fn parse(table: &str, interface: &str) -> Option<Counters> {
    let numbers = numbers(table, interface)?;
    Some(Counters {
        rx_bytes: *numbers.first()?,
        rx_packets: *numbers.get(1)?,
        tx_bytes: *numbers.get(8)?,
        tx_packets: *numbers.get(9)?,
    })
}

/// The counters of one interface from now on.
#[derive(Debug)]
pub struct Baseline<'a> {
    namespace: &'a Namespace,
    interface: String,
    before: Counters,
}

impl<'a> Baseline<'a> {
    /// Starts at what `interface` counted so far.
    pub fn new(namespace: &'a Namespace, interface: &str) -> Self {
        let before = link_counters(namespace, interface);
        Self { namespace, interface: interface.to_owned(), before }
    }

    /// What the interface counted since.
    pub fn since(&self) -> Counters {
        link_counters(self.namespace, &self.interface).sub(self.before)
    }

    /// Waits until the interface counted `expected`, to the unit.
    pub fn expect(&self, expected: Counters) {
        wait::until_equal(
            &format!("{} of {}", self.interface, self.namespace.label()),
            &expected,
            || self.since(),
        );
    }
}

/// Bytes on the wire that WireGuard makes of one packet of `length`: padded to 16, with the header
/// and the tag.
pub fn wireguard_bytes(length: u64) -> u64 {
    32 + length.next_multiple_of(16)
}

/// Whether `packets` messages of WireGuard itself can have `bytes` together: handshake
/// initiations (148), responses (92), keepalives (32).
pub fn explained_by_wireguard(packets: u64, bytes: u64) -> bool {
    (0..=packets).any(|initiations| {
        (0..=packets - initiations).any(|responses| {
            let keepalives = packets - initiations - responses;
            148 * initiations + 92 * responses + 32 * keepalives == bytes
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{explained_by_wireguard, parse, wireguard_bytes};

    #[test]
    fn a_line_of_proc_net_dev_is_read() {
        let table = "Inter-|   Receive\n face |bytes\n  wg0: 10 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n";
        let counters = parse(table, "wg0").unwrap();
        assert_eq!((counters.rx_bytes, counters.rx_packets), (10, 2));
        assert_eq!((counters.tx_bytes, counters.tx_packets), (30, 4));
        assert_eq!(parse(table, "wg1"), None);
    }

    #[test]
    fn overhead_is_padding_header_and_tag() {
        for (length, bytes) in [(0, 32), (1, 48), (16, 48), (17, 64), (1420, 1456)] {
            assert_eq!(wireguard_bytes(length), bytes, "{length}");
        }
    }

    #[test]
    fn only_whole_messages_explain_a_remainder() {
        for (packets, bytes, expected) in
            [(0, 0, true), (2, 240, true), (1, 92, true), (1, 33, false)]
        {
            assert_eq!(explained_by_wireguard(packets, bytes), expected, "{packets} {bytes}");
        }
    }
}
