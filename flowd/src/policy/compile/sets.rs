//! The distinct `from` and `to` lists of a policy, and what each means in a world.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use flowd_common::peer::PeerId;
use ipnet::IpNet;

use crate::{
    flows::Identity,
    policy::{Group, Policy, Selector, World},
};

/// Number of a set.
pub(super) type SetId = u32;

/// An address masked to so many bits, IPv4 mapped.
pub(super) type Prefix = (u128, u8);

/// Where IPv4 lives among the mapped addresses.
pub(super) const MAPPED_V4: Prefix = (0xffff_0000_0000, 96);

/// The distinct lists.
pub(super) struct Sets {
    /// Of each rule, its sources.
    pub(super) from: Vec<SetId>,
    /// Of each rule, its destinations.
    pub(super) to: Vec<SetId>,
    /// How many there are.
    pub(super) count: usize,
    /// Those that mean everything, ascending.
    pub(super) any: Vec<SetId>,
    /// Those that mean the gateway, ascending.
    pub(super) gateway: Vec<SetId>,
    /// Those that mean a prefix, ascending.
    pub(super) by_prefix: HashMap<Prefix, Vec<SetId>>,
    /// Those that mean a peer, ascending.
    pub(super) by_peer: HashMap<PeerId, Vec<SetId>>,
}

impl Sets {
    /// Finds them, and whom they mean.
    pub(super) fn new(policy: &Policy, world: &World) -> Self {
        let mut known: HashMap<BTreeSet<&Selector>, SetId> = HashMap::new();
        let mut lists: Vec<BTreeSet<&Selector>> = Vec::new();
        let mut id = |selectors| {
            let list = BTreeSet::from_iter(selectors);
            *known.entry(list).or_insert_with_key(|list| {
                lists.push(list.clone());
                lists.len() as SetId - 1
            })
        };
        let from = policy.rules.iter().map(|rule| id(&rule.from)).collect();
        let to = policy.rules.iter().map(|rule| id(&rule.to)).collect();
        let mut sets = Self {
            from,
            to,
            count: lists.len(),
            any: Vec::new(),
            gateway: Vec::new(),
            by_prefix: HashMap::new(),
            by_peer: HashMap::new(),
        };
        let people = People::new(world);
        for (set, list) in (0..).zip(&lists) {
            for selector in list {
                sets.add(set, selector, policy, &people);
            }
        }
        for list in sets.by_prefix.values_mut().chain(sets.by_peer.values_mut()) {
            list.dedup();
        }
        sets
    }

    fn add(&mut self, set: SetId, selector: &Selector, policy: &Policy, people: &People<'_>) {
        match selector {
            Selector::Any => self.any.push(set),
            Selector::Gateway => self.gateway.push(set),
            Selector::Net(net) => self.by_prefix.entry(mapped(net)).or_default().push(set),
            Selector::Resource(name) => {
                for net in policy.resources.get(name).into_iter().flatten() {
                    self.by_prefix.entry(mapped(net)).or_default().push(set);
                }
            }
            Selector::Peer(name) => self.add_peers(set, people.called(name)),
            Selector::User(user) => self.add_peers(set, people.of_user(user)),
            Selector::Group(name) => {
                self.add_peers(set, people.in_group(name));
                let Some(Group { peers, users, groups }) = policy.groups.get(name) else {
                    return;
                };
                peers.iter().for_each(|name| self.add_peers(set, people.called(name)));
                users.iter().for_each(|user| self.add_peers(set, people.of_user(user)));
                groups.iter().for_each(|group| self.add_peers(set, people.in_group(group)));
            }
        }
    }

    fn add_peers(&mut self, set: SetId, peers: &[PeerId]) {
        for peer in peers {
            self.by_peer.entry(*peer).or_default().push(set);
        }
    }
}

/// Peers by what a policy may call them.
#[derive(Default)]
struct People<'a> {
    names: HashMap<&'a str, Vec<PeerId>>,
    users: HashMap<&'a str, Vec<PeerId>>,
    groups: HashMap<&'a str, Vec<PeerId>>,
}

impl<'a> People<'a> {
    fn new(world: &'a World) -> Self {
        let mut people = Self::default();
        for (id, identity) in &world.identities {
            let Identity { public_key, name, user, device: _, groups, endpoint: _ } = &**identity;
            people.names.entry(name).or_default().push(*id);
            people.names.entry(public_key).or_default().push(*id);
            if let Some(user) = user {
                people.users.entry(user).or_default().push(*id);
            }
            for group in groups {
                people.groups.entry(group).or_default().push(*id);
            }
        }
        people
    }

    fn called(&self, name: &str) -> &[PeerId] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    fn of_user(&self, user: &str) -> &[PeerId] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    fn in_group(&self, group: &str) -> &[PeerId] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }
}

/// A prefix over the mapped address.
pub(super) fn mapped(net: &IpNet) -> Prefix {
    match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped().to_bits(), net.prefix_len() + 96),
        IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
    }
}

/// One address as a prefix.
pub(super) fn host(ip: IpAddr) -> Prefix {
    mapped(&IpNet::from(ip))
}
