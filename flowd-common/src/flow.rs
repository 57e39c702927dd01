//! Keys and values of the flow, fragment and overflow tables.

use bytemuck::{Pod, Zeroable};

use crate::{addr::Addr, peer::PeerId, policy::Judgement};

/// Identifies one flow on one interface, both directions together.
///
/// The kernel compares keys byte by byte, so every byte here is meaningful: reserved bytes are
/// always zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// The endpoint inside the tunnel: the source of what the gateway receives from the peer.
    pub peer: Addr,
    /// The other endpoint.
    pub remote: Addr,
    /// Host byte order. Zero for protocols without ports; the identifier of an ICMP echo.
    pub peer_port: u16,
    /// Host byte order. Zero for protocols without ports; `type << 8 | code` of an ICMP message
    /// that is no echo, so that error messages are flows of their own.
    pub remote_port: u16,
    /// The interface.
    pub ifindex: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// 0; 1 while an ended entry of the same endpoints waits to be read for the last time.
    pub generation: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// What one flow did so far. Counters only grow while the entry lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowValue {
    /// `CLOCK_MONOTONIC` in nanoseconds when the entry was made.
    pub first_seen_ns: u64,
    /// `jiffies64` at the last packet.
    pub last_seen_jiffies: u64,
    /// Packets from the peer.
    pub rx_packets: u64,
    /// Bytes from the peer.
    pub rx_bytes: u64,
    /// Packets to the peer.
    pub tx_packets: u64,
    /// Bytes to the peer.
    pub tx_bytes: u64,
    /// TCP flags seen, from the peer in bits 0 to 7 and to the peer in bits 8 to 15, and
    /// [`RETIRED`] and [`CUT`]. One word, so that one load reads all and an atomic OR sets any.
    pub marks: u64,
    /// What the policy said of it last. The outcome never changes while the entry lives.
    pub judgement: Judgement,
    /// The peer that owned the endpoint when the entry was made.
    pub peer_id: PeerId,
    /// An [`Initiator`] as a number.
    pub initiator: u8,
    /// Always zero.
    pub reserved: u8,
    /// ICMP type of the first packet.
    pub icmp_type: u8,
    /// ICMP code of the first packet.
    pub icmp_code: u8,
}

/// The bit of [`FlowValue::marks`] that says: ended. Nobody adds to the entry any more, and once
/// every classifier that was running has left, the counters are final.
pub const RETIRED: u64 = 1 << 63;
/// The bit of [`FlowValue::marks`] that says: retired because the policy changed its mind. What
/// follows of the same endpoints is not a new conversation.
pub const CUT: u64 = 1 << 62;
/// Where the TCP flags to the peer start in [`FlowValue::marks`].
pub const TX_FLAGS_SHIFT: u32 = 8;

impl FlowValue {
    /// TCP flags seen from the peer.
    pub const fn rx_tcp_flags(&self) -> u8 {
        self.marks as u8
    }

    /// TCP flags seen to the peer.
    pub const fn tx_tcp_flags(&self) -> u8 {
        (self.marks >> TX_FLAGS_SHIFT) as u8
    }
}

/// Who opened the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Initiator {
    /// TCP met in mid-stream: the flags do not tell.
    #[default]
    Unknown = 0,
    /// The endpoint inside the tunnel.
    Peer = 1,
    /// The other endpoint.
    Remote = 2,
}

/// Names one datagram whose fragments are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// The endpoint inside the tunnel.
    pub peer: Addr,
    /// The other endpoint.
    pub remote: Addr,
    /// Identification, as it stands in the header.
    pub id: u32,
    /// The interface.
    pub ifindex: u32,
    /// IANA protocol number; 44 for IPv6.
    pub protocol: u8,
    /// A [`crate::counter::Direction`] as a number.
    pub direction: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// What the later fragments of a datagram need from the first one: the ports as the flow key has
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentPorts {
    /// As in [`FlowKey::peer_port`].
    pub peer_port: u16,
    /// As in [`FlowKey::remote_port`].
    pub remote_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// Names the bucket that takes the packets of flows for which the flow table had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct OverflowKey {
    /// The interface.
    pub ifindex: u32,
    /// The peer; [`crate::peer::NO_PEER`] for addresses of nobody.
    pub peer_id: PeerId,
    /// An [`Outcome`](crate::policy::Outcome) as a number.
    pub outcome: u8,
    /// A [`crate::counter::Direction`] as a number.
    pub direction: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}
