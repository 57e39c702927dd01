//! Totals over a time range and a filter.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Counters, Opening, Record, Verdict};

/// Flows, packets and bytes of one verdict, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Flows that were active in the range.
    pub flows: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes at layer 3.
    pub bytes: u64,
}

/// Totals; sums of disjoint sets of records add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Flows that were active in the range; overflow is not a flow.
    pub flows: u64,
    /// All packets, overflow included.
    pub counters: Counters,
    /// Of what the policy allows.
    pub allowed: Tally,
    /// Of what the policy denies.
    pub denied: Tally,
    /// The part of `counters` that is in no flow.
    pub overflow: Counters,
}

impl Summary {
    /// Adds one record of what begins with `opening`.
    pub fn absorb(&mut self, record: &Record, opening: impl Into<Opening>) {
        let flows = u64::from(!record.overflow && opening.into().is(record));
        let side = match record.verdict {
            Verdict::Allow => &mut self.allowed,
            Verdict::Deny => &mut self.denied,
        };
        side.flows += flows;
        side.packets += record.counters.packets();
        side.bytes += record.counters.bytes();
        self.flows += flows;
        self.counters += record.counters;
        if record.overflow {
            self.overflow += record.counters;
        }
    }

    /// Adds the totals of other records.
    pub fn merge(&mut self, other: &Self) {
        let Self { flows, counters, allowed, denied, overflow } = other;
        self.flows += flows;
        self.counters += *counters;
        self.overflow += *overflow;
        for (mine, theirs) in [(&mut self.allowed, allowed), (&mut self.denied, denied)] {
            mine.flows += theirs.flows;
            mine.packets += theirs.packets;
            mine.bytes += theirs.bytes;
        }
    }
}
