//! Every map of the datapath. The daemon sets the sizes when it loads the object.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap},
};
use flowd_common::{
    clock::Clocks,
    counter::{CounterKey, Tally},
    flow::{FlowKey, FlowValue, FragmentKey, FragmentPorts, OverflowKey},
    limits,
    peer::{PeerId, PeerPrefix},
};

/// Every flow, counters cumulative. Preallocated and not an LRU: it never forgets a count.
#[map]
pub static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(limits::DEFAULT_FLOWS, 0);

/// Packets of flows that found [`FLOWS`] full.
#[map]
pub static OVERFLOW: HashMap<OverflowKey, Tally> =
    HashMap::with_max_entries(limits::MAX_OVERFLOWS, 0);

/// Packets that are in neither, and why.
#[map]
pub static COUNTERS: HashMap<CounterKey, Tally> =
    HashMap::with_max_entries(limits::MAX_COUNTERS, 0);

/// Ports of datagrams whose fragments are under way. An LRU: it holds no counts.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(limits::MAX_FRAGMENTS, 0);

/// The peer of an address: WireGuard's allowed-ips.
#[map]
pub static PEERS: LpmTrie<PeerPrefix, PeerId> =
    LpmTrie::with_max_entries(limits::MAX_PEER_PREFIXES, 0);

/// Flows that the daemon wants retired, one a run of `flowd_retire`.
#[map]
pub static RETIRE: Array<FlowKey> = Array::with_max_entries(limits::RETIRE_BATCH, 0);

/// Index into [`RETIRE`] of the next run.
#[map]
pub static RETIRE_CURSOR: Array<u32> = Array::with_max_entries(1, 0);

/// What `flowd_clock` read.
#[map]
pub static CLOCKS: Array<Clocks> = Array::with_max_entries(1, 0);
