//! Rules that never decide, because an earlier rule matches everything that they match.
//!
//! Ten thousand rules are fifty million pairs. So each rule looks only at those whose `from` (or
//! `to`, if that leaves fewer) may contain its own, and finds them by the entry that the fewest
//! others contain.

use std::{cell::OnceCell, collections::HashMap};

use super::{
    Policy, Selector, Services,
    cover::{Covers, Entries, EntryId},
    names::Names,
};

/// A rule that never decides, and the first rule that sees to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shadowed {
    pub(super) rule: usize,
    pub(super) by: usize,
}

/// All rules that never decide, ascending; `None`: the rules have too many addresses to tell.
pub(super) fn shadowed(policy: &Policy, names: &Names<'_>) -> Option<Vec<Shadowed>> {
    let mut entries = Entries::of(policy, names);
    let mut from = Side::of(policy.rules.iter().map(|rule| rule.from.as_slice()), &mut entries);
    let mut to = Side::of(policy.rules.iter().map(|rule| rule.to.as_slice()), &mut entries);
    if entries.are_too_many() {
        return None;
    }
    let covers = entries.covers();
    from.index(&covers);
    to.index(&covers);
    let services = policy.rules.iter().map(|rule| Outlined::of(&rule.services)).collect();
    let mut search = Search { covers, services, found: Vec::new() };
    let rarer_from = |rule: usize| from.rarest_of(rule).rules <= to.rarest_of(rule).rules;
    search.by(&from, &to, rarer_from);
    search.by(&to, &from, |rule| !rarer_from(rule));
    search.found.sort_unstable_by_key(|shadowed| shadowed.rule);
    Some(search.found)
}

struct Search<'p> {
    covers: Covers,
    services: Vec<Outlined<'p>>,
    found: Vec<Shadowed>,
}

/// The `from` or the `to` of all rules.
struct Side {
    /// Distinct lists of entries, in the order of the first rule that has them.
    lists: Vec<Vec<EntryId>>,
    /// The list of each rule.
    of_rule: Vec<usize>,
    /// The rules of each list, ascending.
    rules: Vec<Vec<usize>>,
    /// The lists that have an entry, ascending.
    with: Vec<Vec<usize>>,
    /// For each list, its entry that fewest rules contain.
    rarest: Vec<Rarest>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rarest {
    /// An upper bound of the rules that have a list that contains this one.
    rules: usize,
    entry: EntryId,
}

/// A list that may contain another one.
struct Candidate {
    list: usize,
    contains: OnceCell<bool>,
}

/// Services, with what tells cheaply that some do not contain others.
struct Outlined<'p> {
    services: &'p Services,
    /// The first and the last.
    ends: (u32, u32),
    /// What they leave when divided by 64, a bit each.
    residues: u64,
}

impl Search<'_> {
    /// Finds what hides each of the wanted rules, by the lists that `side` has.
    fn by(&mut self, side: &Side, other: &Side, wanted: impl Fn(usize) -> bool) {
        for (list, rules) in side.rules.iter().enumerate() {
            let mut candidates = None;
            for rule in rules.iter().copied().filter(|rule| wanted(*rule)) {
                let candidates =
                    candidates.get_or_insert_with(|| side.candidates(list, &self.covers));
                if let Some(by) = self.first(candidates, rule, side, other) {
                    self.found.push(Shadowed { rule, by });
                }
            }
        }
    }

    /// The first rule that hides `rule`.
    fn first(
        &self,
        candidates: &[Candidate],
        rule: usize,
        side: &Side,
        other: &Side,
    ) -> Option<usize> {
        let inner = &side.lists[side.of_rule[rule]];
        let mut first = None;
        for candidate in candidates {
            let before = first.unwrap_or(rule);
            let rules = &side.rules[candidate.list];
            if rules[0] >= before {
                break; // And so are those of all further lists.
            }
            let contains = || self.covers.contain(&side.lists[candidate.list], inner);
            let hides = |earlier: &usize| {
                self.services[*earlier].contain(&self.services[rule])
                    && *candidate.contains.get_or_init(contains)
                    && other.contains(*earlier, rule, &self.covers)
            };
            let mut earlier = rules.iter().copied().take_while(|earlier| *earlier < before);
            first = earlier.find(hides).or(first);
        }
        first
    }
}

impl Side {
    fn of<'a>(
        lists_of_rules: impl Iterator<Item = &'a [Selector]>,
        entries: &mut Entries<'a>,
    ) -> Self {
        let mut known = HashMap::new();
        let (mut lists, mut of_rule, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for (rule, selectors) in lists_of_rules.enumerate() {
            let list = *known.entry(selectors).or_insert_with(|| {
                lists.push(entries.list(selectors));
                rules.push(Vec::new());
                lists.len() - 1
            });
            of_rule.push(list);
            rules[list].push(rule);
        }
        Self { lists, of_rule, rules, with: Vec::new(), rarest: Vec::new() }
    }

    fn index(&mut self, covers: &Covers) {
        let mut rules_with = vec![0; covers.len()];
        self.with = vec![Vec::new(); covers.len()];
        for (list, entries) in self.lists.iter().enumerate() {
            for entry in entries {
                self.with[*entry as usize].push(list);
                rules_with[*entry as usize] += self.rules[list].len();
            }
        }
        let rules_over =
            |entry: EntryId| covers.of(entry).iter().map(|wider| rules_with[*wider as usize]).sum();
        let rarest = self.lists.iter().map(|entries| {
            let entries = entries.iter();
            let entries = entries.map(|entry| Rarest { rules: rules_over(*entry), entry: *entry });
            entries.min().expect("a checked rule has no empty list")
        });
        self.rarest = rarest.collect();
    }

    fn rarest_of(&self, rule: usize) -> Rarest {
        self.rarest[self.of_rule[rule]]
    }

    /// The lists that contain the rarest entry of `inner`, ascending.
    fn candidates(&self, inner: usize, covers: &Covers) -> Vec<Candidate> {
        let wider = covers.of(self.rarest[inner].entry).iter();
        let mut lists: Vec<_> =
            wider.flat_map(|entry| &self.with[*entry as usize]).copied().collect();
        lists.sort_unstable();
        lists.dedup();
        let candidates = lists.into_iter();
        candidates.map(|list| Candidate { list, contains: OnceCell::new() }).collect()
    }

    fn contains(&self, outer_rule: usize, inner_rule: usize, covers: &Covers) -> bool {
        let (outer, inner) = (self.of_rule[outer_rule], self.of_rule[inner_rule]);
        outer == inner || covers.contain(&self.lists[outer], &self.lists[inner])
    }
}

impl<'p> Outlined<'p> {
    fn of(services: &'p Services) -> Self {
        let ranges = services.ranges();
        let ends = ranges.first().zip(ranges.last());
        let ends = ends.map_or((0, 0), |(first, last)| (*first.start(), *last.end()));
        let residues = ranges.iter().fold(0, |residues, range| {
            let range = range.clone().take(u64::BITS as usize);
            range.fold(residues, |residues, service| residues | 1 << (service % u64::BITS))
        });
        Self { services, ends, residues }
    }

    /// [`Services::contain_all`], with the cheap answers first.
    fn contain(&self, inner: &Self) -> bool {
        self.ends.0 <= inner.ends.0
            && inner.ends.1 <= self.ends.1
            && inner.residues & !self.residues == 0
            && self.services.contain_all(inner.services)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{
        super::{Endpoint, Known, Rule, Service, file::File, names::Names, parse, problem::Report},
        Policy, Selector, Shadowed, shadowed,
    };
    use crate::flows::Identity;

    const LISTS: &str = "
        [groups]
        one = ['alice']
        two = ['group:one', 'user:u']
        mixed = ['key-b', 'group:staff']
        twins = ['twin']
        [resources]
        small = ['10.1.0.0/16', '10.0.0.1']
        large = ['10.0.0.0/8', 'fd00::/8']
    ";
    const SELECTORS: [&str; 22] = [
        "any",
        "gateway",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.0.0.1",
        "::/0",
        "fd00::/8",
        "fd00::1",
        "resource:small",
        "resource:large",
        "alice",
        "bob",
        "key-b",
        "twin",
        "user:u",
        "user:v",
        "group:staff",
        "group:one",
        "group:two",
        "group:mixed",
        "group:twins",
    ];
    const SERVICES: [&str; 8] = [
        "",
        "ports = [22]",
        "ports = ['20-30']",
        "protocols = ['tcp']",
        "protocols = ['tcp', 'udp']\nports = ['22', '80']",
        "protocols = ['icmp']",
        // Port 86 and port 22 leave the same when divided by 64.
        "protocols = ['tcp']\nports = ['20', '86', '90']",
        "protocols = ['tcp']\nports = ['22']",
    ];
    const FLOWS: [Service; 6] = [
        Service::new(6, 22),
        Service::new(6, 80),
        Service::new(6, 25),
        Service::new(17, 22),
        Service::new(1, 8),
        Service::new(47, 0),
    ];

    fn peers() -> Vec<Identity> {
        let peer = |name: &str, key: &str, user: Option<&str>, groups: &[&str]| Identity {
            public_key: key.to_owned(),
            name: name.to_owned(),
            user: user.map(str::to_owned),
            device: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            endpoint: None,
        };
        vec![
            peer("alice", "key-a", Some("u"), &["staff"]),
            peer("bob", "key-b", Some("v"), &["staff", "one"]),
            peer("twin", "key-c", Some("v"), &[]),
            peer("twin", "key-d", None, &["mixed"]),
        ]
    }

    /// Everybody who can be at an end of a flow, as far as rules can tell them apart.
    fn endpoints(peers: &[Identity]) -> Vec<Endpoint<'_>> {
        let ips = ["10.0.0.1", "10.1.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"];
        let ips = ips.map(|ip| ip.parse::<IpAddr>().unwrap());
        let owners = peers.iter().map(Some).chain([None]);
        let at = |peer, is_gateway| ips.map(|ip| Endpoint { peer, ip, is_gateway });
        owners.flat_map(|peer| at(peer, false)).chain(at(None, true)).collect()
    }

    /// The specification: whether one entry contains another.
    fn slow_contains(
        outer: &Selector,
        inner: &Selector,
        policy: &Policy,
        peers: &[Identity],
    ) -> bool {
        match (outer, inner) {
            (Selector::Any, _) => true,
            (_, Selector::Any) => false,
            (Selector::Net(outer), Selector::Net(inner)) => outer.contains(inner),
            (Selector::Resource(outer), inner) => policy.resources[outer]
                .iter()
                .any(|net| slow_contains(&Selector::Net(*net), inner, policy, peers)),
            (outer, Selector::Peer(name)) => peers
                .iter()
                .filter(|peer| peer.name == *name || peer.public_key == *name)
                .all(|peer| outer.means(peer, policy)),
            (Selector::Group(outer), Selector::User(user)) => {
                policy.groups.get(outer).is_some_and(|outer| outer.users.contains(user))
            }
            (Selector::Group(outer), Selector::Group(inner)) => {
                let lists =
                    policy.groups.get(outer).is_some_and(|outer| outer.groups.contains(inner));
                outer == inner || lists
            }
            (outer, inner) => outer == inner,
        }
    }

    fn slow_contain(
        outer: &[Selector],
        inner: &[Selector],
        policy: &Policy,
        peers: &[Identity],
    ) -> bool {
        let unfolded = inner.iter().flat_map(|inner| match inner {
            Selector::Resource(name) => {
                policy.resources[name].iter().map(|net| Selector::Net(*net)).collect()
            }
            other => vec![other.clone()],
        });
        let inner: Vec<_> =
            if inner.contains(&Selector::Any) { vec![Selector::Any] } else { unfolded.collect() };
        inner
            .iter()
            .all(|inner| outer.iter().any(|outer| slow_contains(outer, inner, policy, peers)))
    }

    fn slow_shadowed(policy: &Policy, peers: &[Identity]) -> Vec<Shadowed> {
        let hides = |by: &Rule, rule: &Rule| {
            by.services.contain_all(&rule.services)
                && slow_contain(&by.from, &rule.from, policy, peers)
                && slow_contain(&by.to, &rule.to, policy, peers)
        };
        let rules = policy.rules.iter().enumerate();
        rules
            .filter_map(|(rule, hidden)| {
                let by = policy.rules[..rule].iter().position(|by| hides(by, hidden))?;
                Some(Shadowed { rule, by })
            })
            .collect()
    }

    fn policies() -> impl Strategy<Value = String> {
        let list = || prop::collection::vec(prop::sample::select(&SELECTORS[..]), 1..4);
        let rule = (list(), list(), prop::sample::select(&SERVICES[..]));
        prop::collection::vec(rule, 1..9).prop_map(|rules| {
            let rules = rules.iter().zip('a'..).map(|((from, to, services), id)| {
                format!("[[rules]]\nid = '{id}'\naction = 'deny'\nfrom = {from:?}\nto = {to:?}\n{services}\n")
            });
            format!("{LISTS}{}", rules.collect::<String>())
        })
    }

    proptest! {
        #[test]
        fn shadows_are_those_of_the_slow_twin(text in policies()) {
            let peers = peers();
            let known = Known { identities: &peers };
            let policy = parse(&text, Some(&known)).unwrap().policy;
            let file = File::read(&text, &mut Report::of(&text));
            let found = shadowed(&policy, &Names::of(&file, Some(&known))).unwrap();
            prop_assert_eq!(&found, &slow_shadowed(&policy, &peers));
            let blind = shadowed(&policy, &Names::of(&file, None)).unwrap();
            for hidden in &blind {
                prop_assert!(found.iter().any(|seen| seen.rule == hidden.rule), "{:?}", hidden);
            }
        }

        #[test]
        fn a_shadowed_rule_never_decides(text in policies()) {
            let peers = peers();
            let known = Known { identities: &peers };
            let policy = parse(&text, Some(&known)).unwrap().policy;
            let file = File::read(&text, &mut Report::of(&text));
            let found = shadowed(&policy, &Names::of(&file, Some(&known))).unwrap();
            let endpoints = endpoints(&peers);
            for (from, to) in endpoints.iter().flat_map(|from| endpoints.iter().map(move |to| (from, to))) {
                for service in FLOWS {
                    let decision = policy.decide(from, to, service);
                    prop_assert!(found.iter().all(|hidden| Some(hidden.rule) != decision));
                }
            }
        }
    }
}
