//! Connections: so many at a time, and of one user, each with little memory of its own.

use std::{collections::HashMap, future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{caller, flows::now_ms};
use crate::audit::{Actor, Caller, Event, Log, Outcome, word};

/// Connections at a time; what is more waits in the socket's backlog.
const CONNECTIONS: usize = 1_024;
/// Of one user who is not root.
const CONNECTIONS_OF_USER: usize = 256;
/// What a connection holds of a request's head, or of an answer on its way.
const BUFFER_BYTES: usize = 32 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the API waits for requests under way when the daemon stops. `watch` has no end.
const GRACE: Duration = Duration::from_secs(2);
/// Between two attempts while the operating system refuses connections.
const RETRY: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is done; requests under way may take two seconds longer.
pub(super) async fn serve(
    listener: UnixListener,
    router: Router,
    audit: Log,
    shutdown: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BUFFER_BYTES);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut users = Users::default();
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream) = accept(&listener, &slots) => {
                let Some((caller, own)) = users.admit(&stream, &audit) else { continue };
                let (http, router, audit) = (http.clone(), router.clone(), audit.clone());
                let slots = (slot, own);
                connections.spawn(converse(http, router, (stream, caller), audit, stopped.clone(), slots));
            }
            // So that those who have gone leave nothing behind.
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, stopping));
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::debug!("requests were cut off");
        // Each tells how it ended.
        connections.shutdown().await;
    }
}

async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, UnixStream) {
    let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (slot, stream),
            // The client has gone again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The connections of each user.
#[derive(Debug, Default)]
struct Users(HashMap<u32, Arc<Semaphore>>);

impl Users {
    /// Who it is, and one of that user's places. `None`: nobody knows, or there is none left.
    fn admit(
        &mut self,
        stream: &UnixStream,
        audit: &Log,
    ) -> Option<(Caller, Option<OwnedSemaphorePermit>)> {
        let caller = match caller::of(stream) {
            Ok(caller) => caller,
            Err(error) => {
                tracing::warn!(%error, "a connection is refused: the kernel does not say whose it is");
                return None;
            }
        };
        if caller.uid == 0 {
            return Some((caller, None));
        }
        self.0.retain(|_, places| places.available_permits() < CONNECTIONS_OF_USER);
        let places = self.0.entry(caller.uid);
        let places = places.or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS_OF_USER)));
        match places.clone().try_acquire_owned() {
            Ok(place) => Some((caller, Some(place))),
            Err(_) => {
                let actor = Actor::Caller(caller);
                let event = Event::new(now_ms(), word::ACCESS_LIMITED, actor, Outcome::Refused);
                audit.note(event.with("connections", CONNECTIONS_OF_USER));
                None
            }
        }
    }
}

async fn converse(
    http: http1::Builder,
    router: Router,
    (stream, mut caller): (UnixStream, Caller),
    audit: Log,
    mut stopped: watch::Receiver<()>,
    _slots: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
) {
    let uid = caller.uid;
    let name = tokio::task::spawn_blocking(move || caller::user_name(uid)).await;
    caller.name = name.unwrap_or_default();
    let caller = Arc::new(caller);
    let known = caller.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(known.clone());
        TowerToHyperService::new(router.clone()).call(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // An error: the sender is gone, which is the sign.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
        if error.is_parse() {
            let actor = Actor::Caller(Caller::clone(&caller));
            let event = Event::new(now_ms(), word::REQUEST_MALFORMED, actor, Outcome::Refused);
            audit.note(event.with("why", "it is no HTTP/1.1"));
        }
    }
}
