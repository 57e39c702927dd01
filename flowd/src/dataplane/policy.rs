//! Putting a compiled policy into force.
//!
//! - make maps of the size it needs, and fill them
//! - put them into the set of tables that is not in force
//! - change the one word that says which set is
//! - wait until every classifier that read the old word has left, then free the old set
//!
//! So no packet sees half a policy, and a failure before the word changes leaves the old one.

use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use flowd_common::policy::{Endpoint, EndpointPrefix, Head, Interval, PairBucket};

use super::{DataplaneError, pairs::Buckets, retire::wait_for_classifiers};
use crate::policy::Compiled;

/// `BPF_F_NO_PREALLOC` and `BPF_F_INNER_MAP` in `include/uapi/linux/bpf.h`.
const NO_PREALLOC: u32 = 1;
const INNER_MAP: u32 = 1 << 12;

/// Bits of an address that is a prefix of its own.
const HOST_BITS: u8 = 128;

type Hosts = HashMap<MapData, EndpointPrefix, Endpoint>;
type Nets = LpmTrie<MapData, EndpointPrefix, Endpoint>;
type Pairs = Array<MapData, PairBucket>;
type Chains = Array<MapData, Interval>;

/// The maps of the policy.
pub(super) struct PolicyMaps {
    head: Array<MapData, Head>,
    hosts: ArrayOfMaps<MapData, Hosts>,
    nets: ArrayOfMaps<MapData, Nets>,
    pairs: ArrayOfMaps<MapData, Pairs>,
    chains: ArrayOfMaps<MapData, Chains>,
    in_force: Head,
}

impl PolicyMaps {
    pub(super) fn new(head: Map, hosts: Map, nets: Map, pairs: Map, chains: Map) -> Self {
        let head: Array<MapData, Head> =
            Array::try_from(head).expect("POLICY is an array of one word");
        // Of a daemon before, if there was one.
        let in_force = head.get(&0, 0).unwrap_or_default();
        Self {
            head,
            hosts: ArrayOfMaps::try_from(hosts).expect("HOSTS is an array of maps"),
            nets: ArrayOfMaps::try_from(nets).expect("NETS is an array of maps"),
            pairs: ArrayOfMaps::try_from(pairs).expect("PAIRS is an array of maps"),
            chains: ArrayOfMaps::try_from(chains).expect("CHAINS is an array of maps"),
            in_force,
        }
    }

    pub(super) fn in_force(&self) -> Head {
        self.in_force
    }

    pub(super) fn continue_epochs(&mut self, newest: u32) {
        if self.in_force.epoch() < newest {
            self.in_force = Head::new(newest, u64::from(self.in_force.slot()));
        }
    }

    /// The epoch of the next policy.
    pub(super) fn next_epoch(&self) -> u32 {
        self.in_force.epoch().wrapping_add(1).max(1)
    }

    pub(super) fn install(&mut self, compiled: &Compiled) -> Result<Head, DataplaneError> {
        let slot = 1 - self.in_force.slot();
        let buckets = Buckets::of(&compiled.pairs);
        self.fill(slot, compiled, &buckets).map_err(write)?;
        let head = Head::new(self.next_epoch(), compiled.flags | buckets.flags() | u64::from(slot));
        self.head.set(0, head, 0).map_err(write)?;
        self.in_force = head;
        // The policy is in force: what fails from here on costs memory only.
        let freed = wait_for_classifiers().map_err(|error| error.to_string()).and_then(|()| {
            self.fill(1 - slot, &Compiled::default(), &Buckets::of(&[]))
                .map_err(|error| error.to_string())
        });
        if let Err(error) = freed {
            tracing::warn!(error, "the tables of the old policy stay in memory");
        }
        Ok(head)
    }

    fn fill(&mut self, slot: u32, compiled: &Compiled, buckets: &Buckets) -> Result<(), MapError> {
        let size = |entries: usize| u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
        let endpoints = compiled.endpoints.iter();
        let host_count = endpoints.clone().filter(|(bits, ..)| *bits == HOST_BITS).count();
        let mut hosts = Hosts::create(size(host_count), 0)?;
        let mut nets = Nets::create(size(endpoints.len() - host_count), NO_PREALLOC)?;
        for (bits, prefix, endpoint) in endpoints {
            if *bits == HOST_BITS {
                hosts.insert(prefix, endpoint, 0)?;
            } else {
                let bits = EndpointPrefix::VIEW_BITS + u32::from(*bits);
                nets.insert(&Key::new(bits, *prefix), endpoint, 0)?;
            }
        }
        let mut pairs = Pairs::create(size(buckets.all().len()), INNER_MAP)?;
        for (bucket, index) in buckets.all().iter().zip(0..) {
            pairs.set(index, bucket, 0)?;
        }
        let mut chains = Chains::create(size(compiled.intervals.len()), INNER_MAP)?;
        for (interval, index) in compiled.intervals.iter().zip(0..) {
            chains.set(index, interval, 0)?;
        }
        self.hosts.set(slot, &hosts, 0)?;
        self.nets.set(slot, &nets, 0)?;
        self.pairs.set(slot, &pairs, 0)?;
        self.chains.set(slot, &chains, 0)
    }
}

fn write(source: MapError) -> DataplaneError {
    DataplaneError::Write { table: "policy", source }
}
