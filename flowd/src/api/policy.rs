//! `/v1/policy`: what is in force, what a text would do, putting it into force, and why.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Extension, Json,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use bytes::BytesMut;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::{
    ApiState,
    access::Right,
    bodies::{MAX_BYTES, READER_BYTES},
    error::ApiError,
    flows::{now_ms, page, place},
    params::Params,
    witness::Details,
};
use crate::{
    audit::{Actor, Caller, Event, Hash, Outcome, word},
    flows::{Filter, protocol_number},
    live::{Connection, Question, Request, Unanswerable},
    wire::{self, LastFlow},
};

/// Checks at a time for those who may only read: the drain thread makes them, and drains between two.
static CHECKS: Semaphore = Semaphore::const_new(1);

/// `GET /v1/policy`.
pub(super) async fn show(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Policy>, ApiError> {
    params.only(&[])?;
    Ok(Json(state.live.ask(|reply| Request::Policy { reply }).await?))
}

/// `POST /v1/policy/check`: what the policy in the body would do.
pub(super) async fn check(
    State(state): State<ApiState>,
    Extension(who): Extension<Arc<Caller>>,
    params: Params,
    body: Result<BytesMut, BytesRejection>,
) -> Result<Json<wire::PolicyReport>, ApiError> {
    params.only(&["via"])?;
    let (text, caller) = (text(body)?, via(&params)?);
    let turn = if state.access.may(&who, Right::Administer) {
        None
    } else {
        Some(place(&CHECKS, state.query_timeout).await.map_err(|_late| ApiError::Crowded)?)
    };
    let ask = |reply| Request::CheckPolicy { text, caller, turn, reply };
    let report = state.live.ask(ask).await?;
    Ok(Json(report))
}

/// `PUT /v1/policy`: puts the policy in the body into force.
///
/// `via` is the connection that the caller came by; a policy that would cut it is refused.
pub(super) async fn apply(
    State(state): State<ApiState>,
    Extension(who): Extension<Arc<Caller>>,
    params: Params,
    body: Result<BytesMut, BytesRejection>,
) -> Result<(Extension<Details>, Json<wire::PolicyReport>), ApiError> {
    params.only(&["via"])?;
    let (text, caller) = (text(body)?, via(&params)?);
    let before = state.live.ask(|reply| Request::Policy { reply }).await?;
    let requested = Event::new(
        now_ms(),
        word::POLICY_REQUESTED,
        Actor::Caller(Caller::clone(&who)),
        Outcome::Begun,
    );
    let requested = requested
        .on("/v1/policy")
        .with("revision_before", before.revision)
        .with("sha256_before", Hash::of(before.text.as_bytes()).to_string())
        .with("sha256", Hash::of(text.as_bytes()).to_string());
    let mut details = Details(requested.details.clone());
    // Nothing changes that the log does not know of.
    state.audit.record(requested).await?;
    let report = state.live.ask(|reply| Request::ApplyPolicy { text, caller, reply }).await??;
    if let Some(cut) = &report.cuts_caller {
        let rule = match &cut.rule {
            Some(rule) => format!("rule `{rule}`"),
            None => "the default".to_owned(),
        };
        return Err(ApiError::Conflict(format!(
            "{rule} would cut the connection that you came by, {}; apply it without `via` \
             (flowctl: --yes) if that is meant",
            cut.connection
        )));
    }
    if !report.problems.is_empty() {
        return Err(ApiError::Policy(report.problems));
    }
    details.0.insert("revision".to_owned(), report.revision.into());
    Ok((Extension(details), Json(report)))
}

/// `GET /v1/policy/why?src=…&dst=…`.
pub(super) async fn why(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<wire::Why>, ApiError> {
    params.only(&["src", "dst", "protocol", "port"])?;
    let end = |name| {
        params.get(name).filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "`{name}` is missing; it must be an address, or a peer's name or public key"
            ))
        })
    };
    let question = Question {
        src: end("src")?,
        dst: end("dst")?,
        protocol: params.read(
            "protocol",
            "a name such as tcp, udp or icmp, or a number from 0 to 255",
            protocol_number,
        )?,
        port: params.port("port")?,
    };
    let asked = question.clone();
    let mut answer =
        state.live.ask(|reply| Request::Why { question: asked, reply }).await?.map_err(
            |unanswerable| match unanswerable {
                Unanswerable::Unknown(text) => ApiError::NotFound(text),
                Unanswerable::Ambiguous(text) => ApiError::Conflict(text),
                Unanswerable::Senseless(text) => ApiError::Senseless(text),
            },
        )?;
    let host = |ip: IpAddr| Some(IpNet::from(ip));
    let protocol = answer.protocol.as_deref().and_then(protocol_number);
    let filter = Filter {
        src: host(answer.src.ip),
        dst: host(answer.dst.ip),
        protocol,
        port: question.port.filter(|_| protocol.is_some_and(flowd_common::packet::has_ports)),
        ..Filter::default()
    };
    let newest = page(state, filter, None, 1).await?.flows.into_iter().next();
    answer.last_flow = newest.map(|flow| LastFlow {
        flow_id: flow.flow_id,
        state: flow.state,
        last_seen: flow.last_seen,
        verdict: flow.verdict,
        enforced: flow.enforced,
        rule: flow.rule,
    });
    Ok(Json(answer))
}

/// Refuses a method that a path of this module does not take.
pub(super) async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let takes = if uri.path() == "/v1/policy" { "GET and PUT" } else { "POST" };
    ApiError::Method(format!("{} takes {takes}, not {method}", uri.path().escape_debug()))
}

/// The policy in a body, which is one piece of memory however it came. One that has none was meant otherwise: it would be the policy that allows
/// everything.
pub(super) fn text(body: Result<BytesMut, BytesRejection>) -> Result<String, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(format!(
            "the policy is too long: it may have {MAX_BYTES} bytes, and of those who may only \
                 read {READER_BYTES}"
        )),
        _ => ApiError::BadRequest("the policy broke off, or took too long to come".to_owned()),
    })?;
    if body.is_empty() {
        return Err(ApiError::BadRequest(
            "the request has no policy: send one in the body; `default = \"allow\"` allows \
             everything"
                .to_owned(),
        ));
    }
    String::from_utf8(body.into())
        .map_err(|_| ApiError::BadRequest("the policy is no UTF-8 text".to_owned()))
}

fn via(params: &Params) -> Result<Option<Connection>, ApiError> {
    params.read("via", "two endpoints such as 10.8.0.2:50000-10.8.0.1:22", |text| {
        let (client, server) = text.split_once('-')?;
        let end = |text: &str| text.parse::<SocketAddr>().ok();
        Some(Connection { client: end(client)?, server: end(server)? })
    })
}
