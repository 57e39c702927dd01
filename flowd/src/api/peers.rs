//! `/v1/peers`, `/v1/peers/{key or name}`: who is there, and one peer's history.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking, now_ms},
    params::{Named, Params},
};
use crate::{
    flows::{Identity, PeerEvent, sessions},
    live::Request,
    nearest::nearest,
    store::{StoredEvent, StoredInterval},
    wire::{self, Timestamp},
};

/// How far back a history goes that says nothing else.
const DEFAULT_RANGE_MS: i64 = 7 * 86_400_000;
/// How many keys an answer names that asks to choose.
const KEYS_NAMED: usize = 10;

/// `GET /v1/peers`.
pub(super) async fn list(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::PeerList>, ApiError> {
    params.only(&["peer"])?;
    let all = state.live.ask(|reply| Request::Peers { reply }).await?;
    let wanted = params.peer()?;
    let is_wanted =
        |peer: &&wire::Peer| wanted.as_deref().is_none_or(|wanted| peer.identity.is(wanted));
    Ok(Json(wire::PeerList { peers: all.iter().filter(is_wanted).cloned().collect() }))
}

/// `GET /v1/peers/{key or name}`.
pub(super) async fn detail(
    State(state): State<ApiState>,
    Named(wanted): Named,
    params: Params,
) -> Result<Json<wire::PeerDetail>, ApiError> {
    params.only(&["since", "until"])?;
    let now_ms = now_ms();
    let (since_ms, until_ms) = params.range(now_ms)?;
    let until = until_ms.unwrap_or(now_ms);
    let since_ms = since_ms.unwrap_or_else(|| until.saturating_sub(DEFAULT_RANGE_MS));
    if since_ms >= until {
        let wrong = "`since` is not before now; name an earlier one, or an `until`";
        return Err(ApiError::Senseless(wrong.to_owned()));
    }
    let peers = state.live.ask(|reply| Request::Peers { reply }).await?;
    let identity = find(&state, &wanted, &peers).await?;
    let is_it = |peer: &&wire::Peer| peer.identity.public_key == identity.public_key;
    let interfaces: Vec<wire::Peer> = peers.iter().filter(is_it).cloned().collect();
    let key = identity.public_key.clone();
    let (events, intervals) = blocking(&state, move |reader| {
        let events = reader.peer_events(&key, Some(since_ms), until_ms)?;
        Ok((events, reader.coverage(&key, Some(since_ms), until_ms)?))
    })
    .await?;
    Ok(Json(wire::PeerDetail {
        identity,
        sessions: told_sessions(&events, &interfaces, until_ms),
        interfaces,
        since: Timestamp(since_ms),
        until: Timestamp(until),
        events: events.iter().map(event).collect(),
        coverage: intervals.iter().map(interval).collect(),
    }))
}

/// Whom `wanted` means: somebody who is there, else somebody whom the store knows.
async fn find(state: &ApiState, wanted: &str, peers: &[wire::Peer]) -> Result<Identity, ApiError> {
    let there: BTreeMap<&str, &Identity> = peers
        .iter()
        .map(|peer| &peer.identity)
        .filter(|identity| identity.is(wanted))
        .map(|identity| (identity.public_key.as_str(), identity))
        .collect();
    let mut found: Vec<Identity> = there.into_values().cloned().collect();
    if found.is_empty() {
        let wanted = wanted.to_owned();
        found = blocking(state, move |reader| Ok(reader.find_peers(&wanted)?)).await?;
    }
    let keys: Vec<_> =
        found.iter().take(KEYS_NAMED).map(|identity| identity.public_key.as_str()).collect();
    let shown = wanted.escape_debug();
    match keys.len() {
        1 => Ok(found.swap_remove(0)),
        0 => {
            let names = peers.iter().map(|peer| peer.identity.name.as_str());
            let remedy = match nearest(wanted, names) {
                Some(name) => format!("did you mean `{}`?", name.escape_debug()),
                None => "see /v1/peers for who is there".to_owned(),
            };
            Err(ApiError::NotFound(format!("there is no peer `{shown}`, and was none; {remedy}")))
        }
        _ => Err(ApiError::Conflict(format!(
            "`{shown}` means {} peers: give the public key of one, such as {}",
            found.len(),
            keys.join(", ")
        ))),
    }
}

/// The sessions of every interface, oldest first.
fn told_sessions(
    events: &[StoredEvent<()>],
    interfaces: &[wire::Peer],
    until_ms: Option<i64>,
) -> Vec<wire::PeerSession> {
    let mut by_interface: BTreeMap<Arc<str>, Vec<PeerEvent>> = BTreeMap::new();
    for StoredEvent { interface, event, .. } in events {
        by_interface.entry(interface.clone()).or_default().push(*event);
    }
    // One that began before the range and goes on has left no event in it.
    let present = if until_ms.is_none() { interfaces } else { &[] };
    for peer in present {
        by_interface.entry(peer.interface.as_str().into()).or_default();
    }
    let mut all = Vec::new();
    for (interface, events) in &by_interface {
        let mut told = sessions(events);
        let peer = present.iter().find(|peer| *peer.interface == **interface);
        if let Some(Timestamp(since_ms)) = peer.and_then(|peer| peer.connected_since) {
            match told.last_mut().filter(|session| session.disconnected_ms.is_none()) {
                Some(session) => session.connected_ms = Some(since_ms),
                None => told.push(crate::flows::Session {
                    connected_ms: Some(since_ms),
                    ..crate::flows::Session::default()
                }),
            }
        }
        all.extend(told.into_iter().map(|session| {
            wire::PeerSession {
                interface: interface.to_string(),
                connected: session.connected_ms.map(Timestamp),
                disconnected: session.disconnected_ms.map(Timestamp),
                endpoints: session
                    .endpoints
                    .into_iter()
                    .map(|(since, endpoint)| wire::SessionEndpoint {
                        since: Timestamp(since),
                        endpoint,
                    })
                    .collect(),
            }
        }));
    }
    all.sort_by_key(|session| session.connected);
    all
}

fn event(stored: &StoredEvent<()>) -> wire::PeerEvent {
    let StoredEvent { interface, peer: (), event } = stored;
    wire::PeerEvent {
        at: Timestamp(event.at_ms),
        kind: event.kind,
        interface: interface.to_string(),
        endpoint: event.endpoint,
        was: event.was,
        epoch: event.epoch,
    }
}

fn interval(stored: &StoredInterval<()>) -> wire::PeerInterval {
    let StoredInterval { interface, peer: (), epoch, interval } = stored;
    let coverage = wire::Coverage::new(*epoch, interval);
    wire::PeerInterval { interface: interface.to_string(), coverage }
}
