//! `/v1/verify`: whether the history is as it was sealed, as the daemon finds it.

use std::time::Duration;

use axum::{Extension, Json, extract::State};
use tokio::sync::Semaphore;

use super::{ApiState, error::ApiError, flows::Waiting, params::Params, witness::Details};
use crate::{
    seal::{DayState, Proof},
    store::Leash,
};

/// How long it may take: it reads every record that is stored.
const LIMIT: Duration = Duration::from_mins(10);
/// At a time; the others wait for their turn.
static CHECKS: Semaphore = Semaphore::const_new(1);

/// `GET /v1/verify`: checks every day that is stored against public keys that were kept elsewhere.
pub(super) async fn verify(
    State(state): State<ApiState>,
    params: Params,
) -> Result<(Extension<Details>, Json<Proof>), ApiError> {
    params.only(&["key", "known"])?;
    let keys = params.keys()?.ok_or_else(|| {
        ApiError::BadRequest(
            "`key` is missing; it must be a public key that was kept elsewhere, as `flowctl keys \
             show` prints it"
                .to_owned(),
        )
    })?;
    let known = params.hashes("known")?.unwrap_or_default();
    let turn = CHECKS.acquire().await.map_err(|_| ApiError::CutOff)?;
    let waiting = Waiting(Leash::new(LIMIT));
    let reader = state.reader.clone().on(waiting.0.clone());
    let check = move || {
        // Somebody else's when the check has ended, also when nobody waits for it.
        let _turn = turn;
        reader.prove(&keys, &known)
    };
    let proof = tokio::task::spawn_blocking(check).await.map_err(|_| ApiError::CutOff)??;
    Ok((Extension(details(&proof)), Json(proof)))
}

/// What the audit log is told of it.
fn details(proof: &Proof) -> Details {
    let days = |state| proof.days.iter().filter(|day| day.state == state).count();
    let mut details = Details::default();
    for (name, value) in [
        ("faults", proof.faults.len().into()),
        ("proven_days", days(DayState::Proven).into()),
        ("unproven_days", days(DayState::Unproven).into()),
        ("head", proof.head.as_str().into()),
    ] {
        details.0.insert(name.to_owned(), value);
    }
    details
}
