//! `/metrics` for scrapers that cannot use the socket: TCP, on this machine only.
//!
//! - anybody on the machine may connect, so answers are made one after the other, at most one a
//!   second, and whoever asks meanwhile gets the last one
//! - a connection has one answer, and ten seconds

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Uri, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{
    ApiState,
    error::ApiError,
    metrics,
    params::Params,
    serve::{self, Limits},
};

/// Connections at a time; what is more waits in the listener's backlog.
const LIMITS: Limits = Limits {
    connections: 8,
    patience: Duration::from_secs(5),
    lifetime: Some(Duration::from_secs(10)),
};
/// How old an answer may be for whoever asks next.
const FRESH: Duration = Duration::from_secs(1);

/// The address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for `metrics.listen`: {source}: end what uses it, or set another \
     address"
)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// A listener for scrapers, where the configuration wants one.
#[derive(Debug)]
pub struct Scrapers(Option<StdListener>);

/// Listens for scrapers; whoever connects waits until [`Scrapers::serve`].
pub fn listen(address: Option<SocketAddr>) -> Result<Scrapers, ListenError> {
    let listener = address.map(|address| {
        StdListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|source| ListenError { address, source })
    });
    Ok(Scrapers(listener.transpose()?))
}

impl Scrapers {
    /// Serves until `shutdown` is done.
    pub async fn serve(self, state: ApiState, shutdown: impl Future<Output = ()>) {
        let Self(Some(listener)) = self else { return };
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "nobody can read `metrics.listen`");
                return;
            }
        };
        let (ask, asked) = mpsc::channel(LIMITS.connections);
        let made = tokio::spawn(make(state, asked));
        let router = Router::new()
            .route("/metrics", get(answer).fallback(super::wrong_method))
            .fallback(any(unknown_path))
            .with_state(ask);
        serve::serve(listener, router, LIMITS, shutdown).await;
        // Ended by itself, now that nobody can ask.
        if let Err(error) = made.await {
            tracing::error!(%error, "the metrics ended badly");
        }
    }
}

type Answer = Result<Bytes, ApiError>;

async fn answer(
    State(ask): State<mpsc::Sender<oneshot::Sender<Answer>>>,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    let (reply, answer) = oneshot::channel();
    ask.send(reply).await.map_err(|_| ApiError::CutOff)?;
    let text = answer.await.map_err(|_| ApiError::CutOff)??;
    Ok(([(CONTENT_TYPE, metrics::CONTENT)], text).into_response())
}

/// Makes an answer when the last one is too old.
async fn make(state: ApiState, mut asked: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut last: Option<(Instant, Bytes)> = None;
    while let Some(reply) = asked.recv().await {
        last.take_if(|(made, _)| made.elapsed() >= FRESH);
        let answer = match &last {
            Some((_, text)) => Ok(text.clone()),
            None => metrics::text(&state).await.map(|text| {
                let text = Bytes::from(text);
                last = Some((Instant::now(), text.clone()));
                text
            }),
        };
        // A scraper that has gone is no error.
        drop(reply.send(answer));
    }
}

async fn unknown_path(uri: Uri) -> ApiError {
    let path = uri.path().escape_debug();
    ApiError::NotFound(format!("there is no {path} here, only /metrics; the rest is on the socket"))
}
