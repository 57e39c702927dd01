//! From rules to the kernel's tables.
//!
//! - the `from` and `to` lists of the rules are sets; equal ones are one
//! - every address of a view lies in a *class*: which sets mean it, and whose it is
//! - in each layer, classes that the layer's rules do not tell apart share a *role*
//! - a pair of roles has the rules that speak of both; they become a chain of service intervals
//!
//! A rule goes into one of four layers, by whether its sets hold few classes or many. So a rule for
//! everybody meets few roles, each of which stands for many addresses, and a rule for one peer meets
//! that peer's only: pairs grow with what the rules say, not with its cross product.

mod chain;
mod classes;
mod layout;
mod sets;

use flowd_common::{
    limits::{MAX_CHAIN, MAX_RULES},
    policy::{Endpoint, EndpointPrefix, Head, Interval, Pair},
};

use self::{chain::Chains, classes::Classes, layout::Layout, sets::Sets};
use super::{Mode, Policy, World};
use crate::flows::Verdict;

/// How large the tables may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Prefixes of all views.
    pub endpoints: usize,
    /// Pairs of roles.
    pub pairs: usize,
    /// Entries of all chains.
    pub intervals: usize,
}

/// A policy that does not fit; the one in force stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// See [`Limits::endpoints`].
    #[error(
        "the policy and the peers have {0} prefixes, more than `policy.max_prefixes` = {1} in flowd's configuration: raise it"
    )]
    Endpoints(usize, usize),
    /// See [`Limits::pairs`].
    #[error(
        "the policy needs more than `policy.max_pairs` = {0} pairs of sources and destinations: raise it in flowd's configuration, or write fewer rules that name many sources and many destinations each"
    )]
    Pairs(usize),
    /// See [`Limits::intervals`].
    #[error(
        "the policy needs more than `policy.max_intervals` = {0} ranges of ports: raise it in flowd's configuration"
    )]
    Intervals(usize),
    /// The kernel's search has so many steps.
    #[error(
        "one source and one destination have {0} different ranges of ports between them; there may be {MAX_CHAIN}"
    )]
    Chain(usize),
    /// The kernel's numbers have so many bits.
    #[error("the policy has {0} rules; there may be {MAX_RULES}")]
    Rules(usize),
}

/// What the kernel gets.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Prefixes of every view: bits of the address, key, value.
    pub endpoints: Vec<(u8, EndpointPrefix, Endpoint)>,
    /// Where each pair's chain begins.
    pub pairs: Vec<(Pair, u32)>,
    /// All chains.
    pub intervals: Vec<Interval>,
    /// Flags of [`Head`], the slot left out.
    pub flags: u64,
}

/// Compiles a policy for a world.
pub fn compile(policy: &Policy, world: &World, limits: &Limits) -> Result<Compiled, TooLarge> {
    if policy.rules.len() >= MAX_RULES as usize {
        return Err(TooLarge::Rules(policy.rules.len()));
    }
    let sets = Sets::new(policy, world);
    let mut classes = Classes::default();
    let mut nodes = Vec::new();
    for &ifindex in world.routes.keys() {
        for side in [EndpointPrefix::NEAR, EndpointPrefix::FAR] {
            nodes.extend(classes.of_view(&sets, world, ifindex, side));
        }
    }
    let layout = Layout::smallest(&sets, &classes);
    let mut compiled = Compiled { flags: flags(policy), ..Compiled::default() };
    compiled.endpoints = layout.endpoints(&nodes);
    if compiled.endpoints.len() > limits.endpoints {
        return Err(TooLarge::Endpoints(compiled.endpoints.len(), limits.endpoints));
    }
    let mut chains = Chains::new(limits.intervals);
    for (pair, rules) in layout.pairs(policy, &sets, limits.pairs)? {
        compiled.flags |= Head::LAYER_0 << pair.layer;
        compiled.pairs.push((pair, chains.chain(policy, rules)?));
    }
    compiled.intervals = chains.into_intervals();
    Ok(compiled)
}

fn flags(policy: &Policy) -> u64 {
    let mut flags = 0;
    if policy.default == Verdict::Deny {
        flags |= Head::DEFAULT_DENY;
    }
    if policy.mode == Mode::Enforce {
        flags |= Head::ENFORCE;
        let denies = policy.rules.iter().any(|rule| rule.action == Verdict::Deny);
        if denies || policy.default == Verdict::Deny {
            flags |= Head::STRICT;
        }
    }
    flags
}
