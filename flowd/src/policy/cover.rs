//! Which entries of `from` and `to` contain which others.
//!
//! Resources are seen as their prefixes. Peers are seen as those who go by the name now, so that a
//! user or a group contains its peers; a user or group is never seen as its present peers only,
//! for others may join it.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Policy, Selector, names::Names};
use crate::flows::Identity;

/// Entries of all distinct lists together. A policy of one megabyte could ask for a billion, with
/// a large resource in each rule.
const MAX_LISTED: usize = 5_000_000;

/// A distinct entry, by its number.
pub(super) type EntryId = u32;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Entry<'a> {
    Any,
    Gateway,
    Net(IpNet),
    Peer(&'a str),
    User(&'a str),
    Group(&'a str),
}

/// The distinct entries of all rules.
pub(super) struct Entries<'a> {
    policy: &'a Policy,
    names: &'a Names<'a>,
    ids: HashMap<Entry<'a>, EntryId>,
    /// In all lists together.
    listed: usize,
}

/// For each entry those that contain it, itself included.
pub(super) struct Covers(Vec<Vec<EntryId>>);

/// The groups among the entries, by what they list.
#[derive(Default)]
struct Groups<'a> {
    by_peer: HashMap<&'a str, Vec<EntryId>>,
    by_user: HashMap<&'a str, Vec<EntryId>>,
    by_group: HashMap<&'a str, Vec<EntryId>>,
}

/// Which prefix lengths there are among the entries: few, so that few prefixes are looked up.
#[derive(Default)]
struct PrefixLengths {
    v4: BTreeSet<u8>,
    v6: BTreeSet<u8>,
}

impl<'a> Entries<'a> {
    pub(super) fn of(policy: &'a Policy, names: &'a Names<'a>) -> Self {
        Self { policy, names, ids: HashMap::new(), listed: 0 }
    }

    /// The numbers of the entries of a list, ascending.
    pub(super) fn list(&mut self, selectors: &'a [Selector]) -> Vec<EntryId> {
        if selectors.contains(&Selector::Any) {
            return vec![self.id(Entry::Any)];
        }
        let mut list = Vec::with_capacity(selectors.len());
        for selector in selectors {
            if self.are_too_many() {
                break;
            }
            match selector {
                Selector::Any => list.push(self.id(Entry::Any)),
                Selector::Gateway => list.push(self.id(Entry::Gateway)),
                Selector::Net(net) => list.push(self.id(Entry::Net(*net))),
                Selector::Resource(name) => {
                    let nets = self.policy.resources.get(name).map_or(&[][..], Vec::as_slice);
                    list.extend(nets.iter().map(|net| self.id(Entry::Net(*net))));
                }
                Selector::Peer(name) => list.push(self.id(Entry::Peer(name))),
                Selector::User(name) => list.push(self.id(Entry::User(name))),
                Selector::Group(name) => list.push(self.id(Entry::Group(name))),
            }
        }
        list.sort_unstable();
        list.dedup();
        self.listed += list.len();
        list
    }

    /// Whether the lists were too long to be kept; they are not whole then.
    pub(super) const fn are_too_many(&self) -> bool {
        self.listed > MAX_LISTED
    }

    pub(super) fn covers(&self) -> Covers {
        let groups = self.groups();
        let lengths = self.prefix_lengths();
        let mut covers = vec![Vec::new(); self.ids.len()];
        for (entry, id) in &self.ids {
            let mut outer = self.wider(*entry, &groups, &lengths);
            outer.extend(self.ids.get(&Entry::Any));
            outer.push(*id);
            outer.sort_unstable();
            outer.dedup();
            covers[*id as usize] = outer;
        }
        Covers(covers)
    }

    fn id(&mut self, entry: Entry<'a>) -> EntryId {
        let next = EntryId::try_from(self.ids.len()).expect("a text is shorter than 4 GiB");
        *self.ids.entry(entry).or_insert(next)
    }

    /// What contains the entry, apart from `any`.
    fn wider(
        &self,
        entry: Entry<'a>,
        groups: &Groups<'a>,
        lengths: &PrefixLengths,
    ) -> Vec<EntryId> {
        let listing = |listed: Option<&Vec<EntryId>>| listed.cloned().unwrap_or_default();
        match entry {
            Entry::Any | Entry::Gateway => Vec::new(),
            Entry::Net(net) => {
                let lengths = if net.addr().is_ipv4() { &lengths.v4 } else { &lengths.v6 };
                let shorter = lengths.iter().take_while(|length| **length <= net.prefix_len());
                let outer = shorter.filter_map(|length| IpNet::new(net.addr(), *length).ok());
                outer.filter_map(|net| self.ids.get(&Entry::Net(net.trunc())).copied()).collect()
            }
            Entry::User(name) => listing(groups.by_user.get(name)),
            Entry::Group(name) => listing(groups.by_group.get(name)),
            Entry::Peer(name) => {
                let peers = self.names.peers(name).unwrap_or_default();
                let mut all = peers.iter().map(|peer| self.holding(peer, groups));
                let Some(first) = all.next() else {
                    return listing(groups.by_peer.get(name));
                };
                // Several peers of one name: only what contains each of them.
                all.fold(first, |mut common, other| {
                    common.retain(|entry| other.contains(entry));
                    common
                })
            }
        }
    }

    /// The entries that mean the peer wherever it is.
    fn holding(&self, peer: &'a Identity, groups: &Groups<'a>) -> Vec<EntryId> {
        let Identity { public_key, name, user, groups: member_of, device: _, endpoint: _ } = peer;
        let user = user.as_deref();
        let direct = [Entry::Peer(name), Entry::Peer(public_key)]
            .into_iter()
            .chain(user.map(Entry::User))
            .chain(member_of.iter().map(|group| Entry::Group(group)))
            .filter_map(|entry| self.ids.get(&entry));
        let listing = [groups.by_peer.get(name.as_str()), groups.by_peer.get(public_key.as_str())]
            .into_iter()
            .chain([user.and_then(|user| groups.by_user.get(user))])
            .chain(member_of.iter().map(|group| groups.by_group.get(group.as_str())))
            .flatten()
            .flatten();
        direct.chain(listing).copied().collect()
    }

    fn prefix_lengths(&self) -> PrefixLengths {
        let mut lengths = PrefixLengths::default();
        for entry in self.ids.keys() {
            match entry {
                Entry::Net(IpNet::V4(net)) => _ = lengths.v4.insert(net.prefix_len()),
                Entry::Net(IpNet::V6(net)) => _ = lengths.v6.insert(net.prefix_len()),
                _ => {}
            }
        }
        lengths
    }

    fn groups(&self) -> Groups<'a> {
        let mut groups = Groups::default();
        for (entry, id) in &self.ids {
            let Entry::Group(name) = entry else {
                continue;
            };
            let Some(group) = self.policy.groups.get(*name) else {
                continue;
            };
            for (listed, by) in [
                (&group.peers, &mut groups.by_peer),
                (&group.users, &mut groups.by_user),
                (&group.groups, &mut groups.by_group),
            ] {
                for name in listed {
                    by.entry(name.as_str()).or_default().push(*id);
                }
            }
        }
        groups
    }
}

impl Covers {
    /// The entries that contain `entry`, itself included; ascending.
    pub(super) fn of(&self, entry: EntryId) -> &[EntryId] {
        &self.0[entry as usize]
    }

    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether each entry of `inner` is contained by one of `outer`. Two halves of a prefix are
    /// not put together.
    pub(super) fn contain(&self, outer: &[EntryId], inner: &[EntryId]) -> bool {
        inner
            .iter()
            .all(|entry| self.of(*entry).iter().any(|wider| outer.binary_search(wider).is_ok()))
    }
}
