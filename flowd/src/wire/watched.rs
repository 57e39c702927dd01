//! Records as they are written.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Record;

/// A line of `GET /v1/watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Watched {
    /// The reader was too slow.
    Skipped {
        /// So many records are missing here; they are stored.
        skipped: u64,
    },
    /// A record.
    Record(Box<Record>),
}
