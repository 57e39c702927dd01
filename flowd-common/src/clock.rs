//! The two clocks of the datapath, read at one instant.

use bytemuck::{Pod, Zeroable};

/// A flow is created with the exact clock and stamped with the cheap one; the daemon needs both to
/// put them on one time line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic_ns: u64,
    /// `jiffies64`.
    pub jiffies: u64,
}
