//! What each peer did on each day.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flows::DayTotal;

/// `GET /v1/totals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayTotalList {
    /// Oldest first.
    pub totals: Vec<DayTotal>,
}
