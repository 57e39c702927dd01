//! Classes of addresses: which sets mean an address, and whose it is.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv6Addr,
};

use flowd_common::{
    addr::Addr,
    peer::{NO_PEER, PeerId},
    policy::EndpointPrefix,
};

use super::sets::{MAPPED_V4, Prefix, SetId, Sets, host};
use crate::policy::World;

/// Number of a class.
pub(super) type ClassId = u32;

/// Every class that some address is in: the sets that mean it, ascending.
#[derive(Default)]
pub(super) struct Classes {
    pub(super) sets: Vec<Vec<SetId>>,
    known: HashMap<Vec<SetId>, ClassId>,
}

/// A prefix of a view, without the longer ones inside it.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) prefix: EndpointPrefix,
    pub(super) bits: u8,
    /// The owner, on the peers' side.
    pub(super) peer: PeerId,
    pub(super) class: ClassId,
    /// The position of the next longer prefix around it in the same view.
    pub(super) parent: Option<usize>,
}

/// What holds for everything in a prefix, as far as longer ones do not say otherwise.
#[derive(Clone)]
struct Scope {
    prefix: Prefix,
    node: usize,
    /// By network, ascending.
    sets: Vec<SetId>,
    /// By interface, as [`World::routes`] has them.
    peers: Vec<Option<PeerId>>,
}

impl Classes {
    /// The nodes of one view, from the shortest prefix on; `parent` counts within them.
    pub(super) fn of_view(
        &mut self,
        sets: &Sets,
        world: &World,
        ifindex: u32,
        side: u32,
    ) -> Vec<Node> {
        let owners = owners(world, ifindex, side);
        let mut prefixes: BTreeSet<Prefix> = BTreeSet::from([(0, 0), MAPPED_V4]);
        prefixes.extend(sets.by_prefix.keys());
        prefixes.extend(owners.iter().flat_map(HashMap::keys));
        if !sets.gateway.is_empty() {
            prefixes.extend(world.gateway.iter().map(|ip| host(*ip)));
        }
        let gateway: BTreeSet<Prefix> = world.gateway.iter().map(|ip| host(*ip)).collect();
        let view = EndpointPrefix::view(ifindex, side);
        let mut nodes: Vec<Node> = Vec::with_capacity(prefixes.len());
        let mut around: Vec<Scope> = Vec::new();
        // Ascending order visits a prefix before those inside it.
        for prefix in prefixes {
            while around.last().is_some_and(|scope| !contains(scope.prefix, prefix)) {
                around.pop();
            }
            let parent = around.last().map(|scope| scope.node);
            // What is said of IPv6 says nothing of IPv4.
            let mut scope = match around.last() {
                Some(outer) if prefix != MAPPED_V4 => outer.clone(),
                _ => Scope { prefix, node: 0, sets: Vec::new(), peers: vec![None; owners.len()] },
            };
            scope.prefix = prefix;
            scope.node = nodes.len();
            if let Some(more) = sets.by_prefix.get(&prefix) {
                scope.sets = union(&[&scope.sets, more]);
            }
            for (peer, owners) in scope.peers.iter_mut().zip(&owners) {
                *peer = owners.get(&prefix).copied().or(*peer);
            }
            let peer = scope.peers.iter().copied().find_map(|peer| peer);
            let by_peer = peer.and_then(|peer| sets.by_peer.get(&peer));
            let is_gateway = !sets.gateway.is_empty() && gateway.contains(&prefix);
            let class = self.intern(union(&[
                &sets.any,
                &scope.sets,
                by_peer.map_or(&[], Vec::as_slice),
                if is_gateway { &sets.gateway } else { &[] },
            ]));
            let near = side == EndpointPrefix::NEAR;
            nodes.push(Node {
                prefix: EndpointPrefix { view, addr: Addr::from(Ipv6Addr::from(prefix.0)) },
                bits: prefix.1,
                peer: peer.filter(|_| near).unwrap_or(NO_PEER),
                class,
                parent,
            });
            around.push(scope);
        }
        nodes
    }

    fn intern(&mut self, sets: Vec<SetId>) -> ClassId {
        *self.known.entry(sets).or_insert_with_key(|list| {
            self.sets.push(list.clone());
            self.sets.len() as ClassId - 1
        })
    }
}

/// Who owns which prefix, in the order in which their word counts: on the peers' side only the
/// interface's own peers; on the other side its residents before those of other interfaces.
fn owners(world: &World, ifindex: u32, side: u32) -> Vec<HashMap<Prefix, PeerId>> {
    let own = world.routes.get(&ifindex);
    if side == EndpointPrefix::NEAR {
        let owned = own.into_iter().flat_map(|routes| routes.iter());
        return vec![owned.map(|(addr, bits, peer)| ((addr.to_bits(), bits), peer)).collect()];
    }
    let others = world.routes.iter().filter(|(other, _)| **other != ifindex);
    own.into_iter()
        .chain(others.map(|(_, routes)| routes))
        .map(|routes| {
            routes
                .iter()
                .map(|(addr, bits, peer)| ((addr.to_bits(), bits), peer))
                .filter(|(prefix, _)| *prefix != (0, 0) && *prefix != MAPPED_V4)
                .collect()
        })
        .collect()
}

fn contains(outer: Prefix, inner: Prefix) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(outer.1)).unwrap_or(0);
    outer.1 <= inner.1 && inner.0 & mask == outer.0
}

/// All numbers of ascending lists, ascending.
fn union(lists: &[&[SetId]]) -> Vec<SetId> {
    let mut all = lists.concat();
    all.sort_unstable();
    all.dedup();
    all
}
