//! Which rule decides, for millions of flows: what [`Policy::decide`] says, without a walk over all
//! rules for each.
//!
//! - an end of a flow is meant by entries: some mean its address, others its peer
//! - the rules that list such an entry in `from` are a row of bits, those that list it in `to`
//!   another
//! - so the first bit that the source has in `from` and the destination in `to`, of a rule that
//!   speaks of the service, is the rule that decides
//!
//! Everything found is remembered; when that becomes too much, all of it is forgotten.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    flows::Identity,
    policy::{Policy, Selector, Service},
};

/// Words of eight bytes that may be remembered, roughly: 128 MiB.
pub(super) const ROOM: usize = 16 << 20;
/// What an entry of a map takes beside what it points to, roughly.
const ENTRY_WORDS: usize = 8;

/// One end of a recorded flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) peer: Option<&'a Arc<Identity>>,
    pub(super) ip: IpAddr,
}

/// Decides by one policy.
#[derive(Debug)]
pub(super) struct Judge<'p> {
    policy: &'p Policy,
    gateway: &'p BTreeSet<IpAddr>,
    entries: Entries<'p>,
    room: usize,
    memory: Memory,
}

/// What was found.
#[derive(Debug, Default)]
struct Memory {
    rows: Vec<Rows>,
    /// Rows by the entries that they are of: few ends differ in them.
    known: HashMap<Vec<EntryId>, RowsId>,
    addresses: HashMap<IpAddr, RowsId>,
    peers: HashMap<Shared, RowsId>,
    decisions: HashMap<(Meant, Meant, Service), Option<usize>>,
    /// Roughly.
    words: usize,
}

/// The rules that mean an end: by its address, and by its peer if it has one.
type Meant = (RowsId, Option<RowsId>);

type RowsId = u32;

/// The rules that list some entries: bit `n % 64` of word `n / 64` is of rule `n`.
#[derive(Debug)]
struct Rows {
    from: Box<[u64]>,
    to: Box<[u64]>,
}

/// The same identity only when it is the same in memory, as with the records of one segment.
#[derive(Debug)]
struct Shared(Arc<Identity>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<'p> Judge<'p> {
    pub(super) fn new(policy: &'p Policy, gateway: &'p BTreeSet<IpAddr>, room: usize) -> Self {
        let entries = Entries::of(policy);
        Self { policy, gateway, entries, room, memory: Memory::default() }
    }

    /// As [`Policy::decide`].
    pub(super) fn decide(
        &mut self,
        from: &End<'_>,
        to: &End<'_>,
        service: Service,
    ) -> Option<usize> {
        if self.memory.words > self.room {
            self.memory = Memory::default();
        }
        let asked = (self.meant(from), self.meant(to), service);
        if let Some(decision) = self.memory.decisions.get(&asked) {
            return *decision;
        }
        let decision = self.first(asked);
        self.memory.decisions.insert(asked, decision);
        self.memory.words += ENTRY_WORDS;
        decision
    }

    fn first(&self, (from, to, service): (Meant, Meant, Service)) -> Option<usize> {
        let rows = |id: RowsId| &self.memory.rows[id as usize];
        let (by_source, by_its_peer) = (&rows(from.0).from, from.1.map(|id| &rows(id).from));
        let (by_target, by_that_peer) = (&rows(to.0).to, to.1.map(|id| &rows(id).to));
        let either = |one: &[u64], other: Option<&Box<[u64]>>, word: usize| {
            one[word] | other.map_or(0, |other| other[word])
        };
        for word in 0..by_source.len() {
            let mut both =
                either(by_source, by_its_peer, word) & either(by_target, by_that_peer, word);
            while both != 0 {
                let rule = word * 64 + both.trailing_zeros() as usize;
                if self.policy.rules[rule].services.contains(service) {
                    return Some(rule);
                }
                // Without its lowest bit.
                both &= both - 1;
            }
        }
        None
    }

    fn meant(&mut self, end: &End<'_>) -> Meant {
        (self.by_address(end.ip), end.peer.map(|peer| self.by_peer(peer)))
    }

    fn by_address(&mut self, ip: IpAddr) -> RowsId {
        if let Some(known) = self.memory.addresses.get(&ip) {
            return *known;
        }
        let entries = self.entries.of_address(ip, self.gateway.contains(&ip));
        let rows = self.rows(entries);
        self.memory.addresses.insert(ip, rows);
        self.memory.words += ENTRY_WORDS;
        rows
    }

    fn by_peer(&mut self, peer: &Arc<Identity>) -> RowsId {
        let shared = Shared(peer.clone());
        if let Some(known) = self.memory.peers.get(&shared) {
            return *known;
        }
        let rows = self.rows(self.entries.of_peer(peer, self.policy));
        self.memory.peers.insert(shared, rows);
        // With the identity, which lives as long.
        self.memory.words += 4 * ENTRY_WORDS;
        rows
    }

    fn rows(&mut self, entries: Vec<EntryId>) -> RowsId {
        if let Some(known) = self.memory.known.get(&entries) {
            return *known;
        }
        let id = RowsId::try_from(self.memory.rows.len()).expect("rows have a limit");
        let words = self.policy.rules.len().div_ceil(64);
        let row = |rules: &[Vec<u32>]| {
            let mut row = vec![0; words].into_boxed_slice();
            for rule in entries.iter().flat_map(|entry| &rules[*entry as usize]) {
                row[*rule as usize / 64] |= 1 << (rule % 64);
            }
            row
        };
        let rows = Rows { from: row(&self.entries.from), to: row(&self.entries.to) };
        self.memory.rows.push(rows);
        self.memory.words += 2 * words + entries.len() + ENTRY_WORDS;
        self.memory.known.insert(entries, id);
        id
    }
}

/// Number of a distinct entry of `from` or `to`.
type EntryId = u32;

/// The distinct entries, and the rules that list them.
#[derive(Debug, Default)]
struct Entries<'p> {
    ids: HashMap<&'p Selector, EntryId>,
    /// By entry.
    from: Vec<Vec<u32>>,
    /// By entry.
    to: Vec<Vec<u32>>,
    /// Whom they mean is asked one by one.
    groups: Vec<(&'p Selector, EntryId)>,
    /// Of entries and of the resources that entries name.
    prefixes: HashMap<IpNet, Vec<EntryId>>,
    /// That `prefixes` has.
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
}

impl<'p> Entries<'p> {
    fn of(policy: &'p Policy) -> Self {
        let mut entries = Self::default();
        for (rule, position) in policy.rules.iter().zip(0..) {
            for selector in &rule.from {
                let id = entries.id(selector, policy);
                entries.from[id as usize].push(position);
            }
            for selector in &rule.to {
                let id = entries.id(selector, policy);
                entries.to[id as usize].push(position);
            }
        }
        entries
    }

    fn id(&mut self, selector: &'p Selector, policy: &'p Policy) -> EntryId {
        if let Some(known) = self.ids.get(selector) {
            return *known;
        }
        let id = EntryId::try_from(self.from.len()).expect("a text is shorter than 4 GiB");
        self.ids.insert(selector, id);
        self.from.push(Vec::new());
        self.to.push(Vec::new());
        match selector {
            Selector::Net(net) => self.prefix(*net, id),
            Selector::Resource(name) => {
                for net in policy.resources.get(name).into_iter().flatten() {
                    self.prefix(*net, id);
                }
            }
            Selector::Group(_) => self.groups.push((selector, id)),
            Selector::Any | Selector::Gateway | Selector::Peer(_) | Selector::User(_) => {}
        }
        id
    }

    fn prefix(&mut self, net: IpNet, id: EntryId) {
        let lengths = match net {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        };
        lengths.insert(net.prefix_len());
        self.prefixes.entry(net.trunc()).or_default().push(id);
    }

    /// Those that mean an address, whoever has it; ascending.
    fn of_address(&self, ip: IpAddr, is_gateway: bool) -> Vec<EntryId> {
        let lengths = if ip.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        let around = lengths.iter().filter_map(|bits| IpNet::new(ip, *bits).ok());
        let mut found: Vec<EntryId> = around
            .filter_map(|net| self.prefixes.get(&net.trunc()))
            .flatten()
            .copied()
            .chain(self.ids.get(&Selector::Any).copied())
            .chain(self.ids.get(&Selector::Gateway).copied().filter(|_| is_gateway))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Those that mean a peer, wherever it is; ascending.
    fn of_peer(&self, peer: &Identity, policy: &Policy) -> Vec<EntryId> {
        let names = [&peer.name, &peer.public_key].map(|name| Selector::Peer(name.clone()));
        let user = peer.user.clone().map(Selector::User);
        let named = names.iter().chain(&user).filter_map(|selector| self.ids.get(selector));
        let groups = self.groups.iter().filter(|(group, _)| group.means(peer, policy));
        let mut found: Vec<EntryId> = named.copied().chain(groups.map(|(_, id)| *id)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
