//! `/v1/audit` and `/v1/audit/verify`: who did and read what, and whether that is all.

use std::ops::ControlFlow;

use axum::{Extension, Json, extract::State};
use tokio::sync::Semaphore;

use super::{
    ApiState,
    error::ApiError,
    flows::now_ms,
    params::{CURSOR, Params, digits, one_of},
    witness::Details,
};
use crate::{
    audit::{Head, Outcome},
    store::{AuditError, AuditFilter, AuditReader},
    wire::{AuditEntry, AuditPage, AuditVerdict},
};

pub(super) const DEFAULT_LIMIT: usize = 100;
pub(super) const MAX_LIMIT: usize = 10_000;
/// More than a log ever has, and exact in every reader of JSON.
const MAX_SEQ: u64 = 999_999_999_999_999;
/// Readers of the log at a time; the others wait for their turn.
static READERS: Semaphore = Semaphore::const_new(2);

/// `GET /v1/audit`.
pub(super) async fn list(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<AuditPage>, ApiError> {
    params.only(&[
        "since", "until", "actor", "event", "resource", "outcome", "text", "after", "limit",
        "cursor",
    ])?;
    let (since_ms, until_ms) = params.range(now_ms())?;
    let text = |name, accepted| {
        params.read(name, accepted, |text| (!text.is_empty()).then(|| text.to_owned()))
    };
    let filter = AuditFilter {
        since_ms,
        until_ms,
        actor: text("actor", "name or number of a user, or `system`")?,
        event: text("event", "a word such as query, or the start of one such as policy.*")?,
        resource: text("resource", "a path such as /v1/flows")?,
        outcome: params.read(
            "outcome",
            &one_of(&Outcome::ALL.map(Outcome::word)),
            Outcome::from_word,
        )?,
        text: text("text", "a part of what is said")?,
        after: params.read("after", "the number of an entry", number)?,
        before: params.cursor(CURSOR, digits::<u64>)?,
    };
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let page = reading(&state, move |reader| {
        let mut entries: Vec<AuditEntry> = Vec::new();
        reader.list(&filter, &mut |entry| {
            entries.push(entry.into());
            if entries.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let is_more = entries.len() > limit;
        entries.truncate(limit);
        let last = entries.last().filter(|_| is_more && filter.after.is_none());
        let next_cursor = last.map(|entry| entry.seq.to_string());
        Ok(AuditPage { entries, next_cursor })
    });
    Ok(Json(page.await?))
}

/// `GET /v1/audit/verify`.
pub(super) async fn verify(
    State(state): State<ApiState>,
    params: Params,
) -> Result<(Extension<Details>, Json<AuditVerdict>), ApiError> {
    params.only(&["head", "key"])?;
    let known = params.read("head", "the number of an entry, a colon and its hash", head)?;
    let keys = params.keys()?.unwrap_or_default();
    let verdict = reading(&state, move |reader| reader.verify(known, &keys)).await?;
    let mut details = Details::default();
    let problems = verdict.problems.len() as u64 + verdict.more_problems;
    details.0.insert("problems".to_owned(), problems.into());
    let Head { seq, hash } = verdict.head;
    details.0.insert("head".to_owned(), format!("{seq}:{hash}").into());
    Ok((Extension(details), Json(verdict.into())))
}

/// The number of an entry.
fn number(text: &str) -> Option<u64> {
    digits::<u64>(text).filter(|seq| *seq <= MAX_SEQ)
}

/// `SEQ:HASH`.
fn head(text: &str) -> Option<Head> {
    let (seq, hash) = text.split_once(':')?;
    Some(Head { seq: number(seq)?, hash: hash.parse().ok()? })
}

async fn reading<T: Send + 'static>(
    state: &ApiState,
    read: impl FnOnce(&AuditReader) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, ApiError> {
    let _turn = READERS.acquire().await.map_err(|_| ApiError::CutOff)?;
    let reader = state.audit_reader.clone();
    let answer = tokio::task::spawn_blocking(move || read(&reader)).await;
    Ok(answer.map_err(|_| ApiError::CutOff)??)
}
