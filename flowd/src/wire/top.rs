//! Rankings.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::flows::{self, By, Counters, Key, Sort, Summary, Tally};

/// What some records add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Flows that were active in the range; overflow is not a flow.
    pub flows: u64,
    /// Packets, both directions, overflow included.
    pub packets: u64,
    /// Bytes, both directions, overflow included.
    pub bytes: u64,
    /// Each direction.
    #[serde(flatten)]
    pub counters: Counters,
    /// What the policy allows.
    pub allowed: Tally,
    /// What the policy denies.
    pub denied: Tally,
}

impl From<&Summary> for Traffic {
    fn from(sum: &Summary) -> Self {
        let Summary { flows, counters, allowed, denied, overflow: _ } = *sum;
        let (packets, bytes) = (counters.packets(), counters.bytes());
        Self { flows, packets, bytes, counters, allowed, denied }
    }
}

/// One row of a ranking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopRow {
    /// `None` for what has no such property: no rule, no user, no port, overflow.
    pub key: Option<String>,
    /// What it did.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// `GET /v1/top`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// `None`: from the first record on.
    pub since: Option<Timestamp>,
    /// Until now where the query set no end.
    pub until: Timestamp,
    /// What the keys are.
    pub by: By,
    /// What the rows are sorted by.
    pub sort: Sort,
    /// How many keys there are, also those that are no longer among the rows.
    pub keys: u64,
    /// Everything that matches, also what is in none of the rows.
    pub total: Traffic,
    /// Most first; equals in the order of their keys.
    pub rows: Vec<TopRow>,
}

impl Top {
    /// The shape of the first `limit` rows of `ranking`, for the range it was made for.
    pub fn new(
        (since, until): (Option<Timestamp>, Timestamp),
        (by, sort): (By, Sort),
        ranking: flows::Ranking,
        limit: usize,
    ) -> Self {
        let row = |(key, sum): (Option<Key>, Summary)| TopRow {
            key: key.map(|key| key.to_string()),
            traffic: Traffic::from(&sum),
        };
        Self {
            since,
            until,
            by,
            sort,
            keys: ranking.keys() as u64,
            total: Traffic::from(&ranking.total()),
            rows: ranking.first(limit, sort).into_iter().map(row).collect(),
        }
    }
}
