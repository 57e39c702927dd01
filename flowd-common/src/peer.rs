//! The peer table: which peer owns an address inside the tunnel.

use bytemuck::{Pod, Zeroable};

use crate::addr::Addr;

/// Number of a peer in the kernel tables; the daemon gives them out.
pub type PeerId = u32;

/// The peer of an address that is in nobody's allowed-ips.
pub const NO_PEER: PeerId = 0;

/// The data of a longest-prefix-match key: an address on one interface.
///
/// The prefix length counts the 32 bits of `ifindex` and the address bits that matter, an IPv4
/// prefix of /n being /(96+n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PeerPrefix {
    /// The interface, in native order: compared as a whole only.
    pub ifindex: u32,
    /// The allowed address, its host bits zero.
    pub addr: Addr,
}

impl PeerPrefix {
    /// Bits before the address.
    pub const IFINDEX_BITS: u32 = 32;
    /// Bits of the key when the whole address counts.
    pub const FULL_BITS: u32 = Self::IFINDEX_BITS + 128;
}
