//! `/v1/rates`: what open flows and their peers move now.
//!
//! Each answer is of the time since the look before, whoever asked for that.

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{now_ms, turn},
    params::{FILTERS, Params, one_of},
};
use crate::{
    flows::{Board, RateSort},
    live::Request,
    wire,
};

pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 10_000;
/// Filters that make no sense: the flows are those that are open now.
const OF_OTHER_TIMES: [&str; 3] = ["since", "until", "state"];
const OWN: [&str; 3] = ["sort", "order", "limit"];

/// `GET /v1/rates`: those that move most first, unless told.
pub(super) async fn rates(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Rates>, ApiError> {
    let filters = FILTERS.into_iter().filter(|name| !OF_OTHER_TIMES.contains(name));
    params.only(&filters.chain(OWN).collect::<Vec<_>>())?;
    let filter = params.filter(&OWN, now_ms())?;
    let words = one_of(&RateSort::ALL.map(RateSort::word));
    let sort = params.read("sort", &words, RateSort::from_word)?.unwrap_or(RateSort::Rate);
    let order = params.order()?.unwrap_or_default();
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let _turn = turn(&state, limit).await?;
    let empty = Board::new(sort, order, limit);
    let measured = state.live.ask(|reply| Request::Rates { filter, empty, reply }).await?;
    Ok(Json(wire::Rates::new(&state.gateway, measured)))
}
