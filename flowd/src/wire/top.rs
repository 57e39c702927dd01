//! Rankings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::flows::{self, Counters, Group, Grouping, Key, Order, Sort, Summary, Tally};

/// What some records add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopRow {
    /// The value, where the ranking is by one property. `None` for what has no such property: no
    /// rule, no user, no port, overflow; and where it is by several.
    pub key: Option<String>,
    /// The value of each property that the ranking is by.
    pub values: Vec<Option<String>>,
    /// The part of the whole, of what the rows are sorted by: from 0 to 1.
    pub share: f64,
    /// What it did.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// `GET /v1/top`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// `None`: from the first record on.
    pub since: Option<Timestamp>,
    /// Until now where the query set no end.
    pub until: Timestamp,
    /// What the keys are; several properties have commas between them.
    pub by: Grouping,
    /// What the rows are sorted by.
    pub sort: Sort,
    /// How many keys there are, also those that are no longer among the rows.
    pub keys: u64,
    /// Everything that matches, also what is in none of the rows.
    pub total: Traffic,
    /// Most first, unless least was asked for; equals in the order of their keys.
    pub rows: Vec<TopRow>,
    /// What is in none of the rows: with them, it is the total.
    pub rest: Traffic,
}

impl Top {
    /// The shape of the first `limit` rows of `ranking`, for the range it was made for.
    pub fn new(
        (since, until): (Option<Timestamp>, Timestamp),
        (sort, order): (Sort, Order),
        ranking: flows::Ranking,
        limit: usize,
    ) -> Self {
        let total = ranking.total();
        let (by, keys) = (ranking.by().clone(), ranking.groups() as u64);
        let (rows, rest) = ranking.first(limit, sort, order);
        let row = |(group, sum): (Group, Summary)| TopRow {
            key: key(&group),
            values: values(&group),
            share: share(sort.of(&sum), sort.of(&total)),
            traffic: Traffic::from(&sum),
        };
        Self {
            since,
            until,
            by,
            sort,
            keys,
            total: Traffic::from(&total),
            rows: rows.into_iter().map(row).collect(),
            rest: Traffic::from(&rest),
        }
    }
}

/// The only value of a group.
pub(super) fn key(group: &Group) -> Option<String> {
    let [only] = &*group.0 else { return None };
    only.as_ref().map(Key::to_string)
}

/// All values of a group.
pub(super) fn values(group: &Group) -> Vec<Option<String>> {
    group.0.iter().map(|key| key.as_ref().map(Key::to_string)).collect()
}

/// A part of a whole; nothing of nothing is nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
