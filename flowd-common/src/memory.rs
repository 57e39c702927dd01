//! What a daemon tells the next one, in tables that live as long as the flows do. The datapath
//! reads none of it.

use bytemuck::{Pod, Zeroable};

/// Characters of a public key in base64.
pub const KEY_CHARS: usize = 44;

/// Whom a [`PeerId`](crate::peer::PeerId) stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PeerNote {
    /// The interface that the peer is on.
    pub ifindex: u32,
    /// Its public key, base64.
    pub public_key: [u8; KEY_CHARS],
}

/// An interface since flowd hung on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct InterfaceNote {
    /// Its name, filled up with zeros (`IFNAMSIZ`).
    pub name: [u8; 16],
    /// Unix milliseconds of the first attachment.
    pub since_ms: i64,
    /// The device's own counters at that time: rx packets and bytes, tx packets and bytes.
    pub baseline: [u64; 4],
    /// The same at the last drain.
    pub device: [u64; 4],
}

/// Where the wall clock stood, for flows that were first seen from some instant on. So a flow has
/// the same first-seen time whoever asks when, and with it the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Anchor {
    /// `CLOCK_MONOTONIC` in nanoseconds from which on it holds.
    pub from_ns: u64,
    /// Unix milliseconds at the zero of `CLOCK_MONOTONIC`; 0: no anchor.
    pub zero_ms: i64,
}
