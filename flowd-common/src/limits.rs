//! Every limit of the datapath in one place; derived ones are derived.

/// Flows that the kernel table holds unless the configuration says otherwise.
pub const DEFAULT_FLOWS: u32 = 131_072;
/// Smallest flow table that the configuration accepts.
pub const MIN_FLOWS: u32 = 16;
/// Largest flow table that the configuration accepts.
pub const MAX_FLOWS: u32 = 16 * 1024 * 1024;
/// Per-peer overflow buckets: (interface, peer, verdict, direction).
pub const MAX_OVERFLOWS: u32 = 65_536;
/// Fragmented datagrams whose ports are remembered at a time.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// Allowed-ips of all peers together.
pub const MAX_PEER_PREFIXES: u32 = 262_144;
/// Named counters: (interface, reason, direction).
pub const MAX_COUNTERS: u32 = 4_096;
/// IPv6 extension headers that the parser follows before it gives up.
pub const MAX_EXTENSIONS: usize = 8;
/// Ended flows that one batch marks, reads and deletes.
pub const RETIRE_BATCH: u32 = 4_096;
