//! `/v1/top`: rankings of the stored records and the open flows together.

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking, now_ms},
    params::{Params, one_of},
};
use crate::{
    flows::{By, Sort},
    live::{Pending, Request},
    wire::{self, Timestamp},
};

const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 10_000;

/// `GET /v1/top`: who did most.
pub(super) async fn top(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Top>, ApiError> {
    let now_ms = now_ms();
    let filter = params.filter(&["by", "sort", "limit"], now_ms)?;
    let by = params.read("by", &one_of(&By::ALL.map(By::word)), By::from_word)?;
    let sort = params.read("sort", &one_of(&Sort::ALL.map(Sort::word)), Sort::from_word)?;
    let (by, sort) = (by.unwrap_or(By::Peer), sort.unwrap_or(Sort::Bytes));
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let pending = {
        let filter = filter.clone();
        state.live.ask(|reply| Request::Top { filter, by, reply }).await?
    };
    let until = Timestamp(filter.until_ms.unwrap_or(now_ms));
    let since = filter.since_ms.map(Timestamp);
    let Pending { watermark, answer } = pending;
    let top = blocking(move || {
        let mut ranking = state.reader.top(&filter, by, watermark)?;
        ranking.merge(answer);
        Ok(wire::Top::new((since, until), (by, sort), ranking, limit))
    })
    .await?;
    Ok(Json(top))
}
