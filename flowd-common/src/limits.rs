//! Every limit of the datapath in one place; derived ones are derived.

/// Flows that the kernel table holds unless the configuration says otherwise.
pub const DEFAULT_FLOWS: u32 = 131_072;
/// Smallest flow table that the configuration accepts.
pub const MIN_FLOWS: u32 = 16;
/// Largest flow table that the configuration accepts.
pub const MAX_FLOWS: u32 = 16 * 1024 * 1024;
/// Conversations without a flow, of protocols that do not tell questions from answers, of which it
/// is remembered who asked.
pub const MAX_ASKED: u32 = 16_384;
/// Per-peer overflow buckets: (interface, peer, verdict, direction).
pub const MAX_OVERFLOWS: u32 = 65_536;
/// Fragmented datagrams whose ports are remembered at a time.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// Rules of a policy.
pub const MAX_RULES: u32 = 1 << 20;
/// Steps of the search in a chain, each halving what is left: enough for a chain of 2^20 entries.
pub const CHAIN_STEPS: u32 = 21;
/// Entries of one chain.
pub const MAX_CHAIN: u32 = (1 << (CHAIN_STEPS - 1)) - 1;
/// How long a flow that the policy has cut can only be opened again by whoever opened it: longer
/// than answers to what came before are under way.
pub const CUT_MEMORY_NS: u64 = 60_000_000_000;
/// Buckets in which a pair is looked for.
pub const BUCKET_PROBES: u32 = 16;
/// Peers that the tables can name, of all times since they were made. Not allocated beforehand.
pub const MAX_PEERS: u32 = 1 << 20;
/// Epochs whose policy is remembered. Not allocated beforehand.
pub const MAX_EPOCHS: u32 = 1 << 16;
/// Interfaces that are remembered. Not allocated beforehand.
pub const MAX_INTERFACES: u32 = 4_096;
/// Anchors of the wall clock that are remembered.
pub const MAX_ANCHORS: u32 = 64;
/// Named counters: (interface, reason, direction).
pub const MAX_COUNTERS: u32 = 4_096;
/// IPv6 extension headers that the parser follows before it gives up.
pub const MAX_EXTENSIONS: usize = 8;
/// Ended flows that one batch marks, reads and deletes.
pub const RETIRE_BATCH: u32 = 4_096;
