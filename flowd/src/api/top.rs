//! `/v1/top`: rankings of the stored records and the open flows together.

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking_after, now_ms},
    params::{Params, one_of},
};
use crate::{
    flows::{By, Grouping, Sort},
    live::{Pending, Request},
    wire::{self, Timestamp},
};

pub(super) const DEFAULT_LIMIT: usize = 10;
pub(super) const MAX_LIMIT: usize = 10_000;

/// `GET /v1/top`: who did most.
pub(super) async fn top(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Top>, ApiError> {
    let now_ms = now_ms();
    let filter = params.filter(&["by", "sort", "order", "limit"], now_ms)?;
    let by = grouping(&params)?.unwrap_or_else(|| By::Peer.into());
    let sort = params.read("sort", &one_of(&Sort::ALL.map(Sort::word)), Sort::from_word)?;
    let order = params.order()?.unwrap_or_default();
    let sort = sort.unwrap_or(Sort::Bytes);
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let pending = {
        let (filter, by) = (filter.clone(), by.clone());
        state.live.send(|reply| Request::Top { filter, by, reply })?
    };
    let until = Timestamp(filter.until_ms.unwrap_or(now_ms));
    let since = filter.since_ms.map(Timestamp);
    let top = blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let mut ranking = reader.top(&filter, by, watermark)?;
        ranking.merge(answer);
        Ok(wire::Top::new((since, until), (sort, order), ranking, limit))
    })
    .await?;
    Ok(Json(top))
}

/// What the rows or lines have in common.
pub(super) fn grouping(params: &Params) -> Result<Option<Grouping>, ApiError> {
    let words = By::ALL.map(By::word);
    let most = Grouping::MOST;
    let accepted = format!("{}, or up to {most} of them with commas between", one_of(&words));
    params.read("by", &accepted, |text| text.parse().ok())
}
