//! `/v1/series`: the stored records and the open flows together, over time.

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking_after, now_ms},
    params::{Params, one_of},
    top::grouping,
};
use crate::{
    flows::{Filter, Group, Grouping, Order, Series, Sort, Step},
    live::{Pending, Request},
    wire::{self, Timestamp},
};

/// How long a range is that has no start.
const DEFAULT_RANGE_MS: i64 = 86_400_000;
/// Points that a line has at most where the query names no step.
const DEFAULT_POINTS: i64 = 120;
/// Points that a line has at most.
const MAX_POINTS: i64 = 10_000;
/// Points of all lines together at most.
const MAX_CELLS: i64 = 50_000;
pub(super) const DEFAULT_LINES: usize = 5;
pub(super) const MAX_LINES: usize = 100;

/// `GET /v1/series`: traffic over time. A range without a start begins a day before its end.
pub(super) async fn series(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Series>, ApiError> {
    let now_ms = now_ms();
    let mut filter = params.filter(&["by", "sort", "step", "limit"], now_ms)?;
    let by = grouping(&params)?;
    let sort = params.read("sort", &one_of(&Sort::ALL.map(Sort::word)), Sort::from_word)?;
    let step =
        params.read("step", "a part of a day such as 1m, 5m, 15m, 1h, 6h or 1d", |text| {
            text.parse::<Step>().ok()
        })?;
    let limit = params.limit(MAX_LINES)?.unwrap_or(DEFAULT_LINES);
    let until_ms = filter.until_ms.unwrap_or(now_ms);
    let since_ms = *filter.since_ms.get_or_insert(until_ms.saturating_sub(DEFAULT_RANGE_MS));
    let range_ms = until_ms.saturating_sub(since_ms);
    let step = step.unwrap_or_else(|| Step::of_range(range_ms, DEFAULT_POINTS));
    check_size(range_ms, step, by.as_ref().map_or(1, |_| limit + 2))?;

    let by = match by {
        Some(by) => {
            let groups = groups(&state, &filter, &by, sort.unwrap_or(Sort::Bytes), limit).await?;
            Some((by, groups))
        }
        None => None,
    };
    let empty = Series::new(step, by.clone());
    let pending = {
        let (filter, empty) = (filter.clone(), empty.clone());
        state.live.send(|reply| Request::Series { filter, empty, reply })?
    };
    let series = blocking_after(&state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let mut series = reader.series(&filter, empty, watermark)?;
        series.merge(&answer);
        let range = (Timestamp(since_ms), Timestamp(until_ms));
        Ok(wire::Series::new(range, by, &series))
    });
    Ok(Json(series.await?))
}

fn check_size(range_ms: i64, step: Step, lines: usize) -> Result<(), ApiError> {
    let points = range_ms / step.ms() + 1;
    let lines = i64::try_from(lines).unwrap_or(i64::MAX);
    if points <= MAX_POINTS && points.saturating_mul(lines) <= MAX_CELLS {
        return Ok(());
    }
    Err(ApiError::Senseless(format!(
        "a step of {step} makes {points} points of {lines} lines; {MAX_POINTS} a line and \
         {MAX_CELLS} in all are allowed: take a longer `step`, a shorter range or a lower `limit`"
    )))
}

/// The groups that have most.
async fn groups(
    state: &ApiState,
    filter: &Filter,
    by: &Grouping,
    sort: Sort,
    limit: usize,
) -> Result<Vec<Group>, ApiError> {
    let pending = {
        let (filter, by) = (filter.clone(), by.clone());
        state.live.send(|reply| Request::Top { filter, by, reply })?
    };
    let (filter, by) = (filter.clone(), by.clone());
    blocking_after(state, pending, move |reader, pending| {
        let Pending { watermark, answer } = pending;
        let mut ranking = reader.top(&filter, by, watermark)?;
        ranking.merge(answer);
        let (rows, _) = ranking.first(limit, sort, Order::Descending);
        Ok(rows.into_iter().map(|(group, _)| group).collect())
    })
    .await
}
