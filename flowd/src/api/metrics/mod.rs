//! `/metrics`: Prometheus text format, version 0.0.4.
//!
//! Names and units follow Prometheus' guidelines: base units, `_total` for what only grows while
//! flowd runs, times as seconds since 1970.

mod daemon;
mod interfaces;
mod peers;
mod process;
mod text;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};

use self::text::Text;
use super::{ApiState, error::ApiError, flows, params::Params, records};
use crate::live::{Metrics, Request};

/// The media type of the text.
pub(super) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Queries of one kind: how many run, and how many may.
struct Turns {
    kind: &'static str,
    running: usize,
    limit: usize,
}

/// `GET /metrics`.
pub(super) async fn metrics(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    Ok(([(CONTENT_TYPE, CONTENT)], text(&state).await?).into_response())
}

/// The text as of now.
pub(super) async fn text(state: &ApiState) -> Result<String, ApiError> {
    let metrics = state.live.ask(|reply| Request::Metrics { reply }).await?;
    let turns =
        [("query", flows::running()), ("page", flows::pages()), ("stream", records::running())];
    let turns = turns.map(|(kind, (running, limit))| Turns { kind, running, limit });
    Ok(render(&metrics, &turns, state.live.watchers()))
}

fn render(metrics: &Metrics, turns: &[Turns], watchers: usize) -> String {
    let mut text = Text::default();
    daemon::render(&mut text, metrics);
    daemon::api(&mut text, turns, watchers);
    interfaces::render(&mut text, &metrics.status.interfaces);
    peers::render(&mut text, &metrics.peers, &metrics.traffic);
    process::render(&mut text);
    text.into_string()
}
