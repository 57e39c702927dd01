//! Errors of the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy;

/// Problem details (RFC 9457), served as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of error; `about:blank` where the status says it all.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// One line: what is wrong, where, and what to do.
    pub detail: String,
    /// Of a policy: everything that is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<policy::Problem>,
}
