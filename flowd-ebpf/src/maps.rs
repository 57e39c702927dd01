//! Every map of the datapath. The daemon sets the sizes when it loads the object.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use flowd_common::{
    clock::Clocks,
    counter::{CounterKey, Tally},
    flow::{FlowKey, FlowValue, FragmentKey, FragmentPorts, OverflowKey},
    limits,
    memory::{Anchor, InterfaceNote, PeerNote},
    peer::PeerId,
    policy::{EndpointPrefix, Head},
};

use crate::met::Met;

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

/// The packet that is being decided about, one a CPU.
#[map]
pub static MET: PerCpuArray<Met> = PerCpuArray::with_max_entries(1, 0);

/// The policy in force: which of the two sets of tables below, and how.
#[map]
pub static POLICY: Array<Head> = Array::with_max_entries(1, 0);

/// A `T` as words. Before 6.2 the kernel takes a map made without type information for another kind
/// than one whose values are structs (`bpf_map_meta_equal` in `kernel/bpf/map_in_map.c`), and the
/// daemon's maps have none.
type Words<const N: usize> = [u32; N];

/// Peers and roles of single addresses, an [`Endpoint`](flowd_common::policy::Endpoint) each. The daemon fills the set that is not in force with maps of
/// the size that a policy needs, then changes [`POLICY`].
#[btf_map]
pub static HOSTS: btf_maps::ArrayOfMaps<btf_maps::HashMap<EndpointPrefix, Words<5>, 1>, 2> =
    btf_maps::ArrayOfMaps::new();

/// Those of shorter prefixes. Apart, because a walk down a tree costs a cache miss a step, and most
/// addresses of a policy are single ones.
#[btf_map]
pub static NETS: btf_maps::ArrayOfMaps<btf_maps::LpmTrie<EndpointPrefix, Words<5>, 1>, 2> =
    btf_maps::ArrayOfMaps::new();

/// Where the chains of pairs of roles begin: a [`PairBucket`](flowd_common::policy::PairBucket) each.
#[btf_map]
pub static PAIRS: btf_maps::ArrayOfMaps<
    btf_maps::Array<Words<16>, 1, { BPF_F_INNER_MAP as usize }>,
    2,
> = btf_maps::ArrayOfMaps::new();

/// Which rule decides for which service: an [`Interval`](flowd_common::policy::Interval) each.
#[btf_map]
pub static CHAINS: btf_maps::ArrayOfMaps<
    btf_maps::Array<Words<2>, 1, { BPF_F_INNER_MAP as usize }>,
    2,
> = btf_maps::ArrayOfMaps::new();

/// Who opened a conversation for which [`FLOWS`] had no room, as an `Initiator`. An LRU: it holds no
/// counts, and only what is allowed to ask gets in.
#[map]
pub static ASKED: LruHashMap<FlowKey, u32> = LruHashMap::with_max_entries(limits::MAX_ASKED, 0);

/// Whom the numbers of peers stand for: a note of the daemon to the next one, as are the tables below.
#[map]
pub static PEERS: HashMap<PeerId, PeerNote> =
    HashMap::with_max_entries(limits::MAX_PEERS, BPF_F_NO_PREALLOC);

/// The revision of the policy that was in force in an epoch.
#[map]
pub static EPOCHS: HashMap<u32, u32> =
    HashMap::with_max_entries(limits::MAX_EPOCHS, BPF_F_NO_PREALLOC);

/// Interfaces by number.
#[map]
pub static INTERFACES: HashMap<u32, InterfaceNote> =
    HashMap::with_max_entries(limits::MAX_INTERFACES, BPF_F_NO_PREALLOC);

/// Where the wall clock stood.
#[map]
pub static ANCHORS: Array<Anchor> = Array::with_max_entries(limits::MAX_ANCHORS, 0);

/// Flows that the daemon wants retired, one a run of `flowd_retire`.
#[map]
pub static RETIRE: Array<FlowKey> = Array::with_max_entries(limits::RETIRE_BATCH, 0);

/// Index into [`RETIRE`] of the next run; then 1 when the flows are cut by the policy, else 0.
#[map]
pub static RETIRE_CURSOR: Array<u32> = Array::with_max_entries(2, 0);

/// What `flowd_clock` read.
#[map]
pub static CLOCKS: Array<Clocks> = Array::with_max_entries(1, 0);
