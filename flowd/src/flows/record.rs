//! One record: what one flow did in one window. Append-only, the unit of storage and export.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::{Add, AddAssign, Sub},
    sync::Arc,
};

use flowd_common::{flow, packet};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Identity;

/// Packets and bytes, both ways. Bytes at layer 3, IP header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Packets the gateway received from the peer.
    pub rx_packets: u64,
    /// Bytes the gateway received from the peer.
    pub rx_bytes: u64,
    /// Packets the gateway sent to the peer.
    pub tx_packets: u64,
    /// Bytes the gateway sent to the peer.
    pub tx_bytes: u64,
}

impl Counters {
    /// Packets of both directions.
    pub fn packets(&self) -> u64 {
        self.rx_packets + self.tx_packets
    }

    /// Bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.rx_bytes + self.tx_bytes
    }
}

impl Counters {
    /// Whether none is greater than in `later`.
    pub fn are_within(&self, later: &Self) -> bool {
        self.rx_packets <= later.rx_packets
            && self.rx_bytes <= later.rx_bytes
            && self.tx_packets <= later.tx_packets
            && self.tx_bytes <= later.tx_bytes
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self { rx_packets, rx_bytes, tx_packets, tx_bytes } = other;
        self.rx_packets += rx_packets;
        self.rx_bytes += rx_bytes;
        self.tx_packets += tx_packets;
        self.tx_bytes += tx_bytes;
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Counters {
    type Output = Self;

    /// The growth from `before` to `self`. Counters of one flow never shrink.
    fn sub(self, before: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - before.rx_packets,
            rx_bytes: self.rx_bytes - before.rx_bytes,
            tx_packets: self.tx_packets - before.tx_packets,
            tx_bytes: self.tx_bytes - before.tx_bytes,
        }
    }
}

/// The endpoints of a flow, seen from the tunnel. IPv4 is held v4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// IANA protocol number.
    pub protocol: u8,
    /// The endpoint inside the tunnel.
    pub peer_addr: Ipv6Addr,
    /// The other endpoint.
    pub remote_addr: Ipv6Addr,
    /// As in [`flow::FlowKey::peer_port`].
    pub peer_port: u16,
    /// As in [`flow::FlowKey::remote_port`].
    pub remote_port: u16,
}

impl Tuple {
    /// The tuple of an overflow record, which speaks of no endpoints.
    pub const NONE: Self = Self {
        protocol: 0,
        peer_addr: Ipv6Addr::UNSPECIFIED,
        remote_addr: Ipv6Addr::UNSPECIFIED,
        peer_port: 0,
        remote_port: 0,
    };

    /// The inside address in its own family.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer_addr.to_canonical()
    }

    /// The other address in its own family.
    pub fn remote_ip(&self) -> IpAddr {
        self.remote_addr.to_canonical()
    }

    /// Whether the protocol has ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
    pub fn has_ports(&self) -> bool {
        packet::has_ports(self.protocol)
    }
}

/// Type and code of the first packet of an ICMP or ICMPv6 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Icmp {
    /// ICMP type.
    pub r#type: u8,
    /// ICMP code.
    pub code: u8,
}

/// TCP flags seen each way, as in the header (IPFIX `tcpControlBits`); zero for other protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct TcpFlags {
    /// From the peer.
    pub rx: u8,
    /// To the peer.
    pub tx: u8,
}

/// A closed list of words that stands as a number in SQLite and as a word in JSON.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal $word:tt),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            utoipa::ToSchema,
        )]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant = $number),+ }

        impl $name {
            /// The word in JSON and on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }

            /// The number in SQLite.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The value behind a number from SQLite or the kernel.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

pub(super) use words;

words! {
    // The numbers are those of `flow::Initiator`.
    /// Who opened the conversation.
    Initiator {
        /// TCP met in mid-stream.
        Unknown = 0 "unknown",
        /// The endpoint inside the tunnel.
        Peer = 1 "peer",
        /// The other endpoint.
        Remote = 2 "remote",
    }
}

impl Initiator {
    /// Source and destination: what the initiator has comes first, the peer's where nobody knows.
    pub fn first<T>(self, peer: T, remote: T) -> (T, T) {
        match self {
            Self::Peer | Self::Unknown => (peer, remote),
            Self::Remote => (remote, peer),
        }
    }
}

words! {
    /// What the policy says of a flow.
    Verdict {
        /// It may pass.
        Allow = 0 "allow",
        /// It may not pass.
        Deny = 1 "deny",
    }
}

words! {
    /// Why a flow ended.
    EndReason {
        /// FIN both ways.
        Fin = 1 "fin",
        /// A reset.
        Rst = 2 "rst",
        /// Quiet for the idle time of its protocol.
        Idle = 3 "idle",
        /// A new policy forbids it.
        Policy = 4 "policy",
        /// The peer is no longer configured.
        PeerRemoved = 5 "peer_removed",
        /// The interface is gone.
        InterfaceRemoved = 6 "interface_removed",
        /// The gateway restarted.
        Reboot = 7 "reboot",
        /// flowd stopped.
        Shutdown = 8 "shutdown",
    }
}

const _: () = assert!(Initiator::Remote as u8 == flow::Initiator::Remote as u8);

/// Which entry of the kernel's table a flow is: what the ledger knows it by over restarts. Nobody
/// else sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The interface's number.
    pub ifindex: u32,
    /// As in [`flow::FlowKey::generation`].
    pub generation: u8,
    /// `CLOCK_MONOTONIC` when the entry was made, in nanoseconds; for overflow the number of the
    /// tables.
    pub started_ns: u64,
}

/// What one flow did in one window, or what the packets did that found no room in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Gap-free per gateway from 1; 0 until the store has numbered it.
    pub record_id: u64,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Its entry in the kernel; nothing in a record that was read from a segment.
    pub entry: Entry,
    /// The endpoints; [`Tuple::NONE`] for overflow.
    pub tuple: Tuple,
    /// Unix milliseconds: the end of the window before, or the first packet.
    pub window_start_ms: i64,
    /// Unix milliseconds: when the counters were read, or the last packet of a flow that ended. A
    /// record belongs to a time range when this lies in it.
    pub window_end_ms: i64,
    /// Unix milliseconds of the first packet.
    pub first_seen_ms: i64,
    /// Unix milliseconds of the last packet so far.
    pub last_seen_ms: i64,
    /// Who opened the conversation.
    pub initiator: Initiator,
    /// For ICMP and ICMPv6 only.
    pub icmp: Option<Icmp>,
    /// The peer whose leg of the tunnel this is; `None` for addresses of nobody.
    pub peer: Option<Arc<Identity>>,
    /// The peer at the other end, where the traffic is between two peers.
    pub remote_peer: Option<Arc<Identity>>,
    /// The policy's most specific resource around the inside address; `None` for overflow.
    pub peer_resource: Option<Arc<str>>,
    /// The same of the other address.
    pub remote_resource: Option<Arc<str>>,
    /// What the policy says.
    pub verdict: Verdict,
    /// Whether a denied packet was dropped.
    pub enforced: bool,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The policy that was in force; zero: none.
    pub policy_revision: u32,
    /// In this window.
    pub counters: Counters,
    /// Since the first packet.
    pub total: Counters,
    /// Since the first packet.
    pub tcp_flags: TcpFlags,
    /// `None` while the flow lives.
    pub end_reason: Option<EndReason>,
    /// The sum of a peer's packets that are in no flow: they found the table full, or the policy
    /// judged them apart from their flow.
    pub overflow: bool,
}

impl Record {
    /// Whether this is the first record that its flow has in a range that starts at `since_ms`.
    ///
    /// The windows of a flow follow each other without a hole, so exactly one record of each flow
    /// in a range says yes: counting them counts flows without remembering any.
    pub fn opens_range(&self, since_ms: i64) -> bool {
        self.counters == self.total || self.window_start_ms < since_ms
    }
}

#[cfg(test)]
mod tests {
    use super::{Counters, EndReason, Initiator, Verdict};

    #[test]
    fn words_and_numbers_are_one_to_one() {
        for number in 0..=u8::MAX {
            if let Some(reason) = EndReason::from_number(number) {
                assert_eq!(reason.number(), number);
                assert_eq!(
                    serde_json::to_value(reason).unwrap(),
                    serde_json::Value::from(reason.word())
                );
            }
        }
        assert_eq!(Initiator::from_number(2), Some(Initiator::Remote));
        assert_eq!(Verdict::from_number(2), None);
    }

    #[test]
    fn counters_grow_and_the_growth_is_the_difference() {
        let before = Counters { rx_packets: 1, rx_bytes: 60, tx_packets: 2, tx_bytes: 120 };
        let growth = Counters { rx_packets: 3, rx_bytes: 180, tx_packets: 0, tx_bytes: 0 };
        assert_eq!((before + growth) - before, growth);
        assert_eq!(growth.packets(), 3);
        assert_eq!(before.bytes(), 180);
    }
}
