//! Totals for a range and filters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::flows::{self, Counters, GapSum, Tally};

/// `GET /v1/summary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// `None`: from the first record on.
    pub since: Option<Timestamp>,
    /// Until now where the query set no end.
    pub until: Timestamp,
    /// Flows that were active in the range.
    pub flows: u64,
    /// Of these, flows that still live.
    pub open_flows: u64,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// Each direction.
    #[serde(flatten)]
    pub counters: Counters,
    /// What the policy allows.
    pub allowed: Tally,
    /// What the policy denies.
    pub denied: Tally,
    /// The part of the sums that is in no flow: it found the flow table full, or the policy judged it
    /// apart from its flow.
    pub overflow: Counters,
    /// Gaps that touch the range, whatever else was asked for.
    pub gaps: GapSum,
}

impl Summary {
    /// The shape of `summary` for the range it was made for.
    pub fn new(
        since: Option<Timestamp>,
        until: Timestamp,
        summary: &flows::Summary,
        open_flows: u64,
        gaps: GapSum,
    ) -> Self {
        let flows::Summary { flows, counters, allowed, denied, overflow } = *summary;
        Self {
            since,
            until,
            flows,
            open_flows,
            packets: counters.packets(),
            bytes: counters.bytes(),
            counters,
            allowed,
            denied,
            overflow,
            gaps,
        }
    }
}
