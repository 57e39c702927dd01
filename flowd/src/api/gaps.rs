//! `/v1/gaps`: what the store has, and what it has not taken yet.

use std::collections::BTreeMap;

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking_after, now_ms},
    params::{Params, one_of},
};
use crate::{
    flows::{Gap, GapSum, Stage},
    live::{Pending, Request},
    store::{ReadError, Reader},
    wire,
};

pub(super) const DEFAULT_LIMIT: usize = 1_000;
pub(super) const MAX_LIMIT: usize = 100_000;

/// `GET /v1/gaps`: newest first. A gap of every interface, or every peer, is one of each.
pub(super) async fn list(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::GapList>, ApiError> {
    params.only(&["since", "until", "stage", "interface", "peer", "limit"])?;
    let range = params.range(now_ms())?;
    let stage = params.read("stage", &one_of(&Stage::ALL.map(Stage::word)), Stage::from_word)?;
    let interface = params.read("interface", "the name of an interface", |text| {
        (!text.is_empty()).then(|| text.to_owned())
    })?;
    let peer = params.peer()?;
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let pending = state.live.send(|reply| Request::Gaps { reply })?;
    let gaps = blocking_after(&state, pending, move |reader, pending| {
        Ok(touching(reader, pending, range)?)
    });
    let mut gaps = gaps.await?;
    gaps.retain(|gap| {
        let is_of = |own: Option<&str>, wanted: &str| own.is_none_or(|own| own == wanted);
        stage.is_none_or(|stage| gap.stage == stage)
            && interface.as_deref().is_none_or(|wanted| is_of(gap.interface.as_deref(), wanted))
            && peer
                .as_deref()
                .is_none_or(|wanted| gap.peer.as_deref().is_none_or(|identity| identity.is(wanted)))
    });
    let sum = sum(&gaps);
    let gaps = gaps.iter().rev().take(limit).map(wire::Gap::from).collect();
    Ok(Json(wire::GapList { sum, gaps }))
}

/// How many they are, and their bounds together.
pub(super) fn sum(gaps: &[Gap]) -> GapSum {
    let mut sum = GapSum::default();
    gaps.iter().for_each(|gap| sum.absorb(gap));
    sum
}

/// The gaps that touch a range, in the order in which they began. `pending` is what the drain thread
/// has of them.
pub(super) fn touching(
    reader: &Reader,
    pending: Pending<Vec<Gap>>,
    (since_ms, until_ms): (Option<i64>, Option<i64>),
) -> Result<Vec<Gap>, ReadError> {
    let Pending { watermark, answer } = pending;
    let stored = reader.gaps(since_ms, until_ms)?;
    // What the drain thread says counts; what it has numbered since is one of those without a number.
    let mut by_id: BTreeMap<u64, Gap> = stored
        .into_iter()
        .filter(|gap| gap.gap_id <= watermark)
        .map(|gap| (gap.gap_id, gap))
        .collect();
    let mut gaps = Vec::new();
    for gap in answer {
        match gap.gap_id {
            0 => gaps.push(gap),
            id => drop(by_id.insert(id, gap)),
        }
    }
    gaps.extend(by_id.into_values());
    let (since, until) = (since_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
    gaps.retain(|gap| gap.touches(since, until));
    gaps.sort_by_key(|gap| (gap.opened_ms, gap.gap_id));
    Ok(gaps)
}
