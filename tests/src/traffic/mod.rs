//! Traffic whose packets and bytes at layer 3 are known before it is sent.

pub mod churn;
pub mod flood;
pub mod packet;
pub mod raw;
pub mod steady;
pub mod tcp;
pub mod udp;

use std::{net::IpAddr, ops::Add};

/// One end: the namespace it is in and its address there.
pub type End<'a> = (&'a crate::namespace::Namespace, IpAddr);

/// Packets and bytes one way, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Load {
    /// These packets of so many bytes each.
    pub fn of(packets: u64, bytes_each: u64) -> Self {
        Self { packets, bytes: packets * bytes_each }
    }

    /// As counters of a tunnel where `rx` came from the peer and `tx` went to it.
    pub fn both(rx: Self, tx: Self) -> flowd::flows::Counters {
        flowd::flows::Counters {
            rx_packets: rx.packets,
            rx_bytes: rx.bytes,
            tx_packets: tx.packets,
            tx_bytes: tx.bytes,
        }
    }
}

/// Length of the IP header without options.
pub fn ip_header(ip: IpAddr) -> u64 {
    if ip.is_ipv4() { 20 } else { 40 }
}
