//! What each peer did on each day.

use serde::{Deserialize, Serialize};

use crate::{
    flows::{Counters, Verdict},
    store,
};

/// `GET /v1/totals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayTotalList {
    /// Oldest first.
    pub totals: Vec<DayTotal>,
}

/// What the records of one peer on one UTC day add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayTotal {
    /// YYYY-MM-DD.
    pub day: String,
    /// Name of the interface.
    pub interface: String,
    /// Absent: of no known peer.
    pub public_key: Option<String>,
    /// As the peer was called on the day.
    pub name: Option<String>,
    /// Whose it was.
    pub user: Option<String>,
    /// What it was.
    pub device: Option<String>,
    /// What the policy said.
    pub verdict: Verdict,
    /// How many.
    pub records: u64,
    /// That began on the day.
    pub flows: u64,
    /// What they did.
    #[serde(flatten)]
    pub counters: Counters,
}

impl From<store::DayTotal> for DayTotal {
    fn from(total: store::DayTotal) -> Self {
        let store::DayTotal {
            day,
            interface,
            public_key,
            name,
            user,
            device,
            verdict,
            records,
            flows,
            counters,
        } = total;
        Self { day, interface, public_key, name, user, device, verdict, records, flows, counters }
    }
}
