//! What a peer did on a day.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Counters, Verdict};

/// What the records of one peer on one UTC day add up to, by the names that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayTotal {
    /// YYYY-MM-DD.
    pub day: String,
    /// Name of the interface.
    pub interface: String,
    /// `None`: of no known peer.
    pub public_key: Option<String>,
    /// As it was called.
    pub name: Option<String>,
    /// Whose it was.
    pub user: Option<String>,
    /// What it was.
    pub device: Option<String>,
    /// What the policy said of it.
    pub verdict: Verdict,
    /// How many.
    pub records: u64,
    /// That began on the day.
    pub flows: u64,
    /// As far as it is recorded.
    #[serde(flatten)]
    pub counters: Counters,
}
