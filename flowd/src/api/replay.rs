//! `/v1/policy/replay`: what a policy would have said of the stored records.

use std::ops::ControlFlow;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use tokio::sync::oneshot;

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking, now_ms},
    params::Params,
    policy::text,
};
use crate::{
    flows::Filter,
    live::{Pending, Request, Surroundings},
    policy::{self, Known, Replayed, Replayer},
    store::{ReadError, Reader},
    wire::{self, Timestamp},
};

/// How long a range is that has no start.
const DEFAULT_RANGE_MS: i64 = 7 * 86_400_000;

/// `POST /v1/policy/replay`: whose verdicts the policy in the body would change.
///
/// Only stored records are replayed: what open flows did since their last one, of at most an active
/// timeout, is left out. A range without a start begins seven days before its end.
pub(super) async fn replay(
    State(state): State<ApiState>,
    params: Params,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<wire::Replay>, ApiError> {
    let now_ms = now_ms();
    let mut filter = params.filter(&[], now_ms)?;
    let until_ms = filter.until_ms.unwrap_or(now_ms);
    let since_ms = *filter.since_ms.get_or_insert(until_ms.saturating_sub(DEFAULT_RANGE_MS));
    let text = text(body)?;
    let Pending { watermark, answer } = state.live.ask(|reply| Request::World { reply }).await?;
    // Closed when nobody waits for the answer any more: then this future is dropped.
    let (asked, _asking) = oneshot::channel::<()>();
    let answer = blocking(move || {
        let range = (Some(Timestamp(since_ms)), Timestamp(until_ms));
        let Surroundings { world, known } = answer;
        let checked = match policy::parse(&text, Some(&Known { identities: &known })) {
            Ok(checked) => checked,
            Err(problems) => {
                return Ok(wire::Replay {
                    problems,
                    ..wire::Replay::new(range, Replayed::default())
                });
            }
        };
        let replayer = Replayer::new(&checked.policy, &world.gateway, filter.opening());
        let replayed = absorb(replayer, &state.reader, &filter, watermark, || !asked.is_closed())?;
        Ok(wire::Replay::new(range, replayed))
    })
    .await?;
    Ok(Json(answer))
}

/// Replays the stored records that match, as long as somebody asks.
fn absorb(
    mut replayer: Replayer<'_>,
    reader: &Reader,
    filter: &Filter,
    watermark: u64,
    is_asked: impl Fn() -> bool,
) -> Result<Replayed, ReadError> {
    reader.records(filter, 0, watermark, &mut |record| {
        replayer.absorb(&record);
        if is_asked() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(replayer.finish())
}
