//! `/v1/rates`: what open flows and their peers move now.
//!
//! Each answer is of the time since the look before, whoever asked for that: two looks are half a
//! second apart at least, so that each has something to tell, and whoever asks meanwhile waits.

use std::time::Duration;

use axum::{Json, extract::State};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{
    ApiState,
    error::ApiError,
    flows::{now_ms, turn},
    params::{Params, one_of},
};
use crate::{
    flows::{Board, RateSort},
    live::Request,
    wire,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;
/// Between two looks.
const APART: Duration = Duration::from_millis(500);
/// When the next look may be taken, and whose turn it is.
static NEXT: Mutex<Option<Instant>> = Mutex::const_new(None);

/// `GET /v1/rates`: those that move most first, unless told.
pub(super) async fn rates(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Rates>, ApiError> {
    let filter = params.filter(&["sort", "order", "limit"], now_ms())?;
    if let Some(name) = ["since", "until", "state"].iter().find(|name| params.get(name).is_some()) {
        return Err(ApiError::BadRequest(format!(
            "`{name}` makes no sense here: these are the flows that are open now; leave it out"
        )));
    }
    let sort = params.read("sort", &one_of(&RateSort::ALL.map(RateSort::word)), |word| {
        RateSort::from_word(word)
    })?;
    let (sort, order) = (sort.unwrap_or(RateSort::Rate), params.order()?.unwrap_or_default());
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let empty = Board::new(sort, order, limit);
    let measured = {
        let mut next = NEXT.lock().await;
        if let Some(next) = *next {
            sleep_until(next).await;
        }
        let _turn = turn(limit).await?;
        let measured = state.live.ask(|reply| Request::Rates { filter, empty, reply }).await?;
        *next = Some(Instant::now() + APART);
        measured
    };
    Ok(Json(wire::Rates::new(&state.gateway, measured)))
}
