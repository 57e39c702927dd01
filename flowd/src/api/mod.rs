//! The socket API: HTTP/1.1 and JSON over a Unix socket. The only module that knows axum.
//!
//! It asks the drain thread what is counted and not recorded, and the store for the rest; it owns
//! neither.

mod access;
mod audit;
mod bodies;
mod budget;
mod caller;
mod door;
mod error;
mod flows;
mod gaps;
mod grant;
mod metrics;
mod openapi;
mod params;
mod peers;
mod policy;
pub mod query;
mod rates;
mod records;
mod replay;
mod room;
mod routes;
mod scrape;
mod series;
mod serve;
mod socket;
mod sorting;
mod sql;
mod top;
mod totals;
mod verify;
mod witness;

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    routing::{any, get, post},
};
use tokio::net::UnixListener;

pub use access::Access;
pub use scrape::{ListenError, Scrapers, listen};
pub use socket::{BindError, Prepared, bind};

use self::{
    bodies::Bodies, budget::Budget, error::ApiError, params::Params, room::Room, routes::Routes,
    witness::Witness,
};
use crate::{
    audit::Log,
    live::{Live, Request},
    store::{AuditReader, Reader, sql::MAX_BYTES},
    wire,
};

/// What every request needs.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// The drain thread.
    pub live: Live,
    /// The store.
    pub reader: Reader,
    /// Id of this gateway.
    pub gateway: Arc<str>,
    /// How long a query may take; a stream, between two pieces of it.
    pub query_timeout: Duration,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Where it is told what they did.
    pub audit: Log,
    /// And read again.
    pub audit_reader: AuditReader,
}

/// Serves until `shutdown` is done; requests under way may take two seconds longer.
pub async fn serve(
    socket: UnixListener,
    state: ApiState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let door = door::Door::new(socket, state.audit.clone());
    serve::serve(door, router(state), serve::SOCKET, shutdown).await;
}

fn router(state: ApiState) -> Router {
    let Routes { router, paths: _ } = routes();
    let bodies = Bodies::new(state.access.clone());
    let witness = Witness {
        access: state.access.clone(),
        budget: Budget::default(),
        log: state.audit.clone(),
    };
    router
        .fallback(any(unknown_path))
        .layer(middleware::from_fn_with_state(Room::new(), room::keep))
        .layer(middleware::from_fn_with_state(bodies, bodies::admit))
        .layer(middleware::from_fn_with_state(witness, witness::guard))
        .layer(middleware::from_fn_with_state(serve::SOCKET.patience, bodies::watch))
        .with_state(state)
}

fn routes() -> Routes {
    Routes::default()
        .route("/v1/status", get(status).fallback(wrong_method))
        .route("/v1/summary", get(flows::summary).fallback(wrong_method))
        .route("/v1/flows", get(flows::list).fallback(wrong_method))
        .route("/v1/flows/{flow_id}", get(flows::detail).fallback(wrong_method))
        .route("/v1/records", get(records::list).fallback(wrong_method))
        .route("/v1/rates", get(rates::rates).fallback(wrong_method))
        .route("/v1/gaps", get(gaps::list).fallback(wrong_method))
        .route("/v1/audit", get(audit::list).fallback(wrong_method))
        .route("/v1/audit/verify", get(audit::verify).fallback(wrong_method))
        .route("/v1/verify", get(verify::verify).fallback(wrong_method))
        .route("/v1/series", get(series::series).fallback(wrong_method))
        .route("/v1/top", get(top::top).fallback(wrong_method))
        .route("/v1/peers", get(peers::list).fallback(wrong_method))
        .route("/v1/peers/{peer}", get(peers::detail).fallback(wrong_method))
        .route("/v1/segments", get(segments).fallback(wrong_method))
        .route("/v1/totals", get(totals::list).fallback(wrong_method))
        .route("/v1/watch", get(records::watch).fallback(wrong_method))
        .route("/v1/policy", get(policy::show).put(policy::apply).fallback(policy::wrong_method))
        .route("/v1/policy/check", post(policy::check).fallback(policy::wrong_method))
        .route("/v1/policy/why", get(policy::why).fallback(wrong_method))
        .route("/v1/policy/replay", post(replay::replay).fallback(policy::wrong_method))
        .route("/v1/openapi.json", get(openapi::show).fallback(wrong_method))
        .route(
            "/v1/sql",
            get(sql::tables)
                .post(sql::ask)
                .layer(DefaultBodyLimit::max(MAX_BYTES))
                .fallback(sql::wrong_method),
        )
        .route("/metrics", get(metrics::metrics).fallback(wrong_method))
}

async fn status(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Status>, ApiError> {
    params.only(&[])?;
    Ok(Json(state.live.ask(|reply| Request::Status { reply }).await?))
}

async fn segments(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::SegmentList>, ApiError> {
    params.only(&[])?;
    let list = flows::blocking(&state, move |reader| {
        let segments = reader.segments()?.into_iter().map(Into::into).collect();
        let path = reader.directory().display().to_string();
        Ok(wire::SegmentList { path, segments })
    });
    Ok(Json(list.await?))
}

async fn unknown_path(uri: axum::http::Uri) -> ApiError {
    ApiError::NotFound(format!(
        "there is no {}; the endpoints are {}",
        uri.path().escape_debug(),
        openapi::paths().join(", ")
    ))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::Method(format!("{} takes GET, not {}", uri.path().escape_debug(), method))
}

#[cfg(test)]
mod tests;
