//! Compiled tables on the host, read by the procedure that the kernel runs.

use std::collections::HashMap;

use flowd_common::{
    addr::Addr,
    policy::{Endpoint, Interval, Pair, Tables},
};

use super::Compiled;
use crate::flows::Prefixes;

/// What the kernel has.
#[derive(Debug, Default)]
pub struct HostTables {
    endpoints: HashMap<u32, Prefixes<Endpoint>>,
    pairs: HashMap<Pair, u32>,
    intervals: Vec<Interval>,
}

impl From<Compiled> for HostTables {
    fn from(compiled: Compiled) -> Self {
        let Compiled { endpoints, pairs, intervals, flags: _ } = compiled;
        let mut views: HashMap<u32, Prefixes<Endpoint>> = HashMap::new();
        for (bits, prefix, endpoint) in endpoints {
            views.entry(prefix.view).or_default().insert(prefix.addr.into(), bits, endpoint);
        }
        Self { endpoints: views, pairs: pairs.into_iter().collect(), intervals }
    }
}

impl Tables for HostTables {
    fn endpoint(&self, view: u32, addr: Addr) -> Endpoint {
        let found = self.endpoints.get(&view).and_then(|prefixes| prefixes.longest(addr.into(), 0));
        found.copied().unwrap_or_default()
    }

    fn chain(&self, pair: &Pair) -> Option<u32> {
        self.pairs.get(pair).copied()
    }

    fn interval(&self, index: u32) -> Option<Interval> {
        self.intervals.get(index as usize).copied()
    }
}
