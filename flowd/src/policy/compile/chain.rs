//! Chains: for the rules that speak of one pair, which one decides for which service.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowd_common::{
    limits::MAX_CHAIN,
    policy::{Decision, Interval, UNDECIDED},
};

use super::TooLarge;
use crate::{
    flows::Verdict,
    policy::{Policy, Service},
};

/// All chains so far; equal ones are one.
pub(super) struct Chains {
    limit: usize,
    intervals: Vec<Interval>,
    by_rules: HashMap<Vec<u32>, u32>,
    by_content: HashMap<Vec<Interval>, u32>,
}

impl Chains {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, intervals: Vec::new(), by_rules: HashMap::new(), by_content: HashMap::new() }
    }

    /// Where the chain of these rules begins.
    pub(super) fn chain(&mut self, policy: &Policy, rules: Vec<u32>) -> Result<u32, TooLarge> {
        if let Some(known) = self.by_rules.get(&rules) {
            return Ok(*known);
        }
        let content = intervals(policy, &rules);
        let start = match self.by_content.get(&content) {
            Some(known) => *known,
            None => self.push(content)?,
        };
        self.by_rules.insert(rules, start);
        Ok(start)
    }

    fn push(&mut self, content: Vec<Interval>) -> Result<u32, TooLarge> {
        if content.len() > MAX_CHAIN as usize {
            return Err(TooLarge::Chain(content.len()));
        }
        let start = self.intervals.len();
        if start + 1 + content.len() > self.limit {
            return Err(TooLarge::Intervals(self.limit));
        }
        self.intervals.push(Interval { start: content.len() as u32, decision: 0 });
        self.intervals.extend(&content);
        self.by_content.insert(content, start as u32);
        Ok(start as u32)
    }

    pub(super) fn into_intervals(self) -> Vec<Interval> {
        self.intervals
    }
}

/// Sweeps over the services: of the rules that are open at a service, the first decides.
fn intervals(policy: &Policy, rules: &[u32]) -> Vec<Interval> {
    let mut changes: BTreeMap<u32, (Vec<u32>, Vec<u32>)> = BTreeMap::from([(0, <_>::default())]);
    for &position in rules {
        for range in policy.rules[position as usize].services.ranges() {
            changes.entry(*range.start()).or_default().0.push(position);
            if *range.end() < Service::LAST {
                changes.entry(range.end() + 1).or_default().1.push(position);
            }
        }
    }
    let mut open: BTreeSet<u32> = BTreeSet::new();
    let mut intervals: Vec<Interval> = Vec::new();
    for (start, (opened, closed)) in changes {
        // Ranges of one rule do not touch, so none closes and opens at once.
        for position in closed {
            open.remove(&position);
        }
        open.extend(opened);
        let decision = open.first().map_or(UNDECIDED, |position| decision(policy, *position));
        if intervals.last().is_none_or(|last| last.decision != decision) {
            intervals.push(Interval { start, decision });
        }
    }
    intervals
}

fn decision(policy: &Policy, position: u32) -> Decision {
    let denies = policy.rules[position as usize].action == Verdict::Deny;
    (position + 1) << 1 | u32::from(denies)
}
