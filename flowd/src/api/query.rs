//! The parameters of `/v1/flows` as one value.

use axum::http::Uri;

use super::{
    error::ApiError,
    params::{self, CURSOR, Params},
};
use crate::{flows::Filter, live::Position};

/// Flows of a page at most.
const MAX_LIMIT: usize = 10_000;

/// Which flows a page has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Those that match.
    pub filter: Filter,
    /// How many at most.
    pub limit: Option<usize>,
    /// Those behind this one.
    pub before: Option<Position>,
}

impl Query {
    pub(super) fn of(params: &Params, now_ms: i64) -> Result<Self, ApiError> {
        Ok(Self {
            filter: params.filter(&["limit", "cursor"], now_ms)?,
            limit: params.limit(MAX_LIMIT)?,
            before: params.read("cursor", CURSOR, params::parse_cursor)?,
        })
    }
}

/// Reads a query string; the error is what the client is told. For the fuzz target `query`.
#[doc(hidden)]
pub fn read(query: &str, now_ms: i64) -> Result<Query, String> {
    let uri = Uri::builder().path_and_query(format!("/v1/flows?{query}")).build();
    let uri = uri.map_err(|error| error.to_string())?;
    let params = Params::in_uri(&uri).map_err(|error| error.to_string())?;
    Query::of(&params, now_ms).map_err(|error| error.to_string())
}

/// The cursor of a position. For the fuzz target `query`.
#[doc(hidden)]
pub fn cursor(position: &Position) -> String {
    params::cursor(position)
}
