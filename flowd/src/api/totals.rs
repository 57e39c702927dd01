//! `/v1/totals`: what each peer did on each day, also on those whose records have gone.

use axum::{Json, extract::State};
use jiff::{Timestamp, tz::TimeZone};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking, now_ms},
    params::Params,
};
use crate::wire;

/// `GET /v1/totals`: the UTC days that a range touches.
pub(super) async fn list(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::DayTotalList>, ApiError> {
    params.only(&["since", "until", "peer"])?;
    let (since_ms, until_ms) = params.range(now_ms())?;
    let peer = params.peer()?;
    let first = since_ms.and_then(day_of);
    let last = until_ms.and_then(|until| day_of(until - 1));
    let list = blocking(&state, move |reader| {
        let mut totals = reader.day_totals(first.as_deref(), last.as_deref())?;
        if let Some(wanted) = peer {
            totals.retain(|total| {
                let is_named = |name: &Option<String>| name.as_deref() == Some(wanted.as_str());
                let key = total.public_key.as_deref().unwrap_or_default();
                is_named(&total.name) || (wanted.len() >= 4 && key.starts_with(wanted.as_str()))
            });
        }
        Ok(wire::DayTotalList { totals })
    });
    Ok(Json(list.await?))
}

/// The UTC day of an instant in milliseconds; `None`: far from any.
fn day_of(ms: i64) -> Option<String> {
    let instant = Timestamp::from_millisecond(ms).ok()?;
    Some(instant.to_zoned(TimeZone::UTC).date().to_string())
}
