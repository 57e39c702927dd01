//! Layers, roles and pairs.

use std::collections::{HashMap, hash_map::Entry};

use flowd_common::policy::{Endpoint, EndpointPrefix, LAYERS, Pair};

use super::{
    TooLarge,
    classes::{ClassId, Classes, Node},
    sets::{SetId, Sets},
};
use crate::policy::Policy;

/// Classes up to which a set counts as having few; the layout with the fewest pairs is taken.
const THRESHOLDS: [usize; 4] = [0, 8, 64, 512];

/// Rules that speak of one pair, on average, before the policy is too large: the time and memory
/// that compiling takes grow with them.
const RULES_A_PAIR: usize = 8;

/// Number of a role; 0: none.
type Role = u32;

/// Which rules are in which layer, and which classes share a role there.
pub(super) struct Layout {
    from: [Roles; 2],
    to: [Roles; 2],
    many_from: Vec<bool>,
    many_to: Vec<bool>,
}

/// The roles of one half of the rules, as sources or as destinations.
#[derive(Default)]
struct Roles {
    of_class: Vec<Role>,
    of_set: Vec<Vec<Role>>,
}

impl Layout {
    /// The layout that needs the fewest pairs.
    pub(super) fn smallest(sets: &Sets, classes: &Classes) -> Self {
        let mut width = vec![0_usize; sets.count];
        for set in classes.sets.iter().flatten() {
            width[*set as usize] += 1;
        }
        let mut best: Option<(u64, Self)> = None;
        for threshold in THRESHOLDS {
            let layout = Self::new(sets, classes, &width, threshold);
            let pairs = layout.count(sets);
            if best.as_ref().is_none_or(|(fewest, _)| pairs < *fewest) {
                best = Some((pairs, layout));
            }
        }
        best.expect("there are thresholds").1
    }

    fn new(sets: &Sets, classes: &Classes, width: &[usize], threshold: usize) -> Self {
        let many: Vec<bool> = width.iter().map(|width| *width > threshold).collect();
        let halves = |used: &[SetId]| {
            [false, true].map(|half| {
                let mut wanted = vec![false; sets.count];
                for set in used.iter().map(|set| *set as usize) {
                    wanted[set] = many[set] == half;
                }
                Roles::new(&wanted, classes)
            })
        };
        Self {
            from: halves(&sets.from),
            to: halves(&sets.to),
            many_from: sets.from.iter().map(|set| many[*set as usize]).collect(),
            many_to: sets.to.iter().map(|set| many[*set as usize]).collect(),
        }
    }

    /// At most so many pairs.
    fn count(&self, sets: &Sets) -> u64 {
        let rules = 0..sets.from.len();
        rules
            .map(|rule| {
                let (_, from, to) = self.roles(sets, rule);
                from.len() as u64 * to.len() as u64
            })
            .sum()
    }

    /// The layer of a rule, and the roles of its sources and destinations there.
    fn roles(&self, sets: &Sets, rule: usize) -> (u32, &[Role], &[Role]) {
        let (from, to) = (usize::from(self.many_from[rule]), usize::from(self.many_to[rule]));
        let layer = (from | to << 1) as u32;
        debug_assert!(layer < LAYERS);
        (
            layer,
            &self.from[from].of_set[sets.from[rule] as usize],
            &self.to[to].of_set[sets.to[rule] as usize],
        )
    }

    /// What the kernel is told of each node that differs from the one around it.
    pub(super) fn endpoints(&self, nodes: &[Node]) -> Vec<(u8, EndpointPrefix, Endpoint)> {
        let mut told = Vec::with_capacity(nodes.len());
        let mut values: Vec<Endpoint> = Vec::with_capacity(nodes.len());
        // Where the nodes of the current view begin, from which `parent` counts.
        let mut start = 0;
        for (position, node) in nodes.iter().enumerate() {
            if node.parent.is_none() {
                start = position;
            }
            let value = self.endpoint(node.class, node.peer);
            let around = node.parent.map(|parent| values[start + parent]);
            if around != Some(value) {
                told.push((node.bits, node.prefix, value));
            }
            values.push(value);
        }
        told
    }

    fn endpoint(&self, class: ClassId, peer_id: u32) -> Endpoint {
        let of = |roles: &[Roles; 2]| [0, 1].map(|half| roles[half].of_class[class as usize]);
        Endpoint { peer_id, from: of(&self.from), to: of(&self.to) }
    }

    /// The rules that speak of each pair, in their order, up to one that leaves nothing over.
    pub(super) fn pairs(
        &self,
        policy: &Policy,
        sets: &Sets,
        limit: usize,
    ) -> Result<Vec<(Pair, Vec<u32>)>, TooLarge> {
        let mut pairs: Vec<(Pair, Vec<u32>)> = Vec::new();
        let mut known: HashMap<Pair, usize> = HashMap::new();
        let mut listed = 0_usize;
        for position in 0..policy.rules.len() as u32 {
            let (layer, from, to) = self.roles(sets, position as usize);
            for (&from, &to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
                let pair = Pair { layer, from, to };
                listed += 1;
                if listed > limit.saturating_mul(RULES_A_PAIR) {
                    return Err(TooLarge::Pairs(limit));
                }
                match known.entry(pair) {
                    Entry::Vacant(_) if pairs.len() == limit => return Err(TooLarge::Pairs(limit)),
                    Entry::Vacant(entry) => {
                        entry.insert(pairs.len());
                        pairs.push((pair, vec![position]));
                    }
                    Entry::Occupied(entry) => {
                        let rules = &mut pairs[*entry.get()].1;
                        let last = rules.last().map(|last| &policy.rules[*last as usize]);
                        if last.is_none_or(|last| !last.services.is_any()) {
                            rules.push(position);
                        }
                    }
                }
            }
        }
        Ok(pairs)
    }
}

impl Roles {
    /// Classes that are alike in the wanted sets have one role.
    fn new(wanted: &[bool], classes: &Classes) -> Self {
        let mut known: HashMap<Vec<SetId>, Role> = HashMap::from([(Vec::new(), 0)]);
        let mut of_set = vec![Vec::new(); wanted.len()];
        let mut of_class = Vec::with_capacity(classes.sets.len());
        for sets in &classes.sets {
            let mine: Vec<SetId> =
                sets.iter().copied().filter(|set| wanted[*set as usize]).collect();
            let next = known.len() as Role;
            let role = match known.entry(mine) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    for set in entry.key() {
                        of_set[*set as usize].push(next);
                    }
                    *entry.insert(next)
                }
            };
            of_class.push(role);
        }
        Self { of_class, of_set }
    }
}
