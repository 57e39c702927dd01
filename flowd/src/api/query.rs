//! The parameters of `/v1/flows` as one value.

use axum::http::Uri;

pub use super::sorting::Sorting;
use super::{error::ApiError, params::Params};
use crate::{flows::Filter, store::Place};

/// Flows of a page at most.
pub(super) const MAX_LIMIT: usize = 10_000;

/// Which flows a page has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Those that match.
    pub filter: Filter,
    /// How many at most.
    pub limit: Option<usize>,
    /// In which order.
    pub by: Sorting,
    /// Those behind this one.
    pub after: Option<Place>,
}

impl Query {
    pub(super) fn of(params: &Params, now_ms: i64) -> Result<Self, ApiError> {
        let mut filter = params.filter(&["limit", "cursor", "sort", "order"], now_ms)?;
        let by = Sorting::of(params)?;
        let after = by.after(params, &mut filter)?;
        Ok(Self { filter, limit: params.limit(MAX_LIMIT)?, by, after })
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

/// The cursor of a query, where it has one. For the fuzz target `query`.
#[doc(hidden)]
pub fn cursor(query: &Query) -> Option<String> {
    query.after.as_ref().map(|place| query.by.cursor(&query.filter, place))
}
