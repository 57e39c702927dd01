//! Named counters: the packets that end in no flow, and why.

use bytemuck::{Pod, Zeroable};

/// Packets and bytes, cumulative since the map was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tally {
    /// Packets; a GSO or GRO super-packet counts as its segments.
    pub packets: u64,
    /// Bytes at layer 3: IP header included, link header excluded.
    pub bytes: u64,
}

/// Which way a packet crossed the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The gateway received it from the peer: rx.
    Ingress = 0,
    /// The gateway sent it to the peer: tx.
    Egress = 1,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// Names one counter of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct CounterKey {
    /// The interface that saw the packet.
    pub ifindex: u32,
    /// A [`Counter`] as a number.
    pub counter: u8,
    /// A [`Direction`] as a number.
    pub direction: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// Why a packet is in no flow, or how the counts relate to the device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Shorter than its own headers say.
    Truncated = 0,
    /// Neither IPv4 nor IPv6 by its version nibble.
    NotIp = 1,
    /// A header contradicts itself, such as an IPv4 header length below 20, or has an IPv4 address in
    /// IPv6.
    Malformed = 2,
    /// More IPv6 extension headers than [`crate::limits::MAX_EXTENSIONS`].
    TooManyExtensions = 3,
    /// The flow table and the overflow table were both full.
    OverflowFull = 4,
    /// Not a loss: the packets and bytes by which segments of super-packets exceed the buffers
    /// that carried them. A device that counts buffers shows flowd's sum less this.
    Coalesced = 5,
    /// Not a loss: packets that the policy dropped. They are counted where they belong as well.
    Dropped = 6,
    /// Not a loss: packets that found the flow table full. They are in an overflow bucket, or in
    /// [`Self::OverflowFull`].
    TableFull = 7,
}

impl Counter {
    /// The counters of packets that are in no flow and in no overflow bucket.
    pub const UNCOUNTED: [Self; 5] = [
        Self::Truncated,
        Self::NotIp,
        Self::Malformed,
        Self::TooManyExtensions,
        Self::OverflowFull,
    ];

    /// All counters.
    pub const ALL: [Self; 8] = [
        Self::Truncated,
        Self::NotIp,
        Self::Malformed,
        Self::TooManyExtensions,
        Self::OverflowFull,
        Self::Coalesced,
        Self::Dropped,
        Self::TableFull,
    ];

    /// The name in status, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NotIp => "not_ip",
            Self::Malformed => "malformed",
            Self::TooManyExtensions => "too_many_extensions",
            Self::OverflowFull => "overflow_full",
            Self::Coalesced => "coalesced",
            Self::Dropped => "dropped",
            Self::TableFull => "table_full",
        }
    }

    /// The counter behind the number in a [`CounterKey`], if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Truncated,
            1 => Self::NotIp,
            2 => Self::Malformed,
            3 => Self::TooManyExtensions,
            4 => Self::OverflowFull,
            5 => Self::Coalesced,
            6 => Self::Dropped,
            7 => Self::TableFull,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn numbers_and_counters_are_one_to_one() {
        for (number, counter) in (0_u8..).zip(Counter::ALL) {
            assert_eq!(counter as u8, number);
            assert_eq!(Counter::from_number(number), Some(counter));
        }
        assert_eq!(Counter::from_number(8), None);
    }
}
