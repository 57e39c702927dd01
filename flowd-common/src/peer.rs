//! Peers as the kernel tables name them.

/// Number of a peer in the kernel tables; the daemon gives them out.
pub type PeerId = u32;

/// The peer of an address that is in nobody's allowed-ips.
pub const NO_PEER: PeerId = 0;
