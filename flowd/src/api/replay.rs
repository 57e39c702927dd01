//! `/v1/policy/replay`: what a policy would have said of the stored records.

use std::{ops::ControlFlow, time::Duration};

use axum::{
    Json,
    extract::{State, rejection::BytesRejection},
};
use bytes::BytesMut;
use tokio::sync::Semaphore;

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking_for, now_ms, place},
    params::Params,
    policy::text,
};
use crate::{
    live::{Pending, Request, Surroundings},
    policy::{self, Known, Replayed, Replayer},
    wire::{self, Timestamp},
};

/// How long a range is that has no start.
const DEFAULT_RANGE_MS: i64 = 7 * 86_400_000;

/// Replays at a time: others have turns while they take theirs.
static REPLAYS: Semaphore = Semaphore::const_new(2);
/// How long a replay may take, which judges every record of its range.
const LIMIT: Duration = Duration::from_mins(10);

/// `POST /v1/policy/replay`: whose verdicts the policy in the body would change.
///
/// Only stored records are replayed: what open flows did since their last one, of at most an active
/// timeout, is left out. A range without a start begins seven days before its end.
pub(super) async fn replay(
    State(state): State<ApiState>,
    params: Params,
    body: Result<BytesMut, BytesRejection>,
) -> Result<Json<wire::Replay>, ApiError> {
    let now_ms = now_ms();
    let mut filter = params.filter(&[], now_ms)?;
    let until_ms = filter.until_ms.unwrap_or(now_ms);
    let since_ms = *filter.since_ms.get_or_insert(until_ms.saturating_sub(DEFAULT_RANGE_MS));
    let text = text(body)?;
    let turn = place(&REPLAYS, LIMIT).await?;
    let Pending { watermark, answer } = state.live.ask(|reply| Request::World { reply }).await?;
    let answer = blocking_for(&state, LIMIT, move |reader| {
        // Somebody else's when it has ended, also when nobody waits for it.
        let _turn = turn;
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
        let mut replayer = Replayer::new(&checked.policy, &world.gateway, filter.opening());
        reader.records(&filter, 0, watermark, &mut |record| {
            replayer.absorb(&record);
            ControlFlow::Continue(())
        })?;
        Ok(wire::Replay::new(range, replayer.finish()))
    })
    .await?;
    Ok(Json(answer))
}
