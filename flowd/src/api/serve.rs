//! Connections: so many at a time, each with little memory of its own.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

/// Connections at a time; what is more waits in the socket's backlog.
const CONNECTIONS: usize = 1_024;
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
    shutdown: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BUFFER_BYTES);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream) = accept(&listener, &slots) => {
                let (http, router) = (http.clone(), router.clone());
                connections.spawn(converse(http, router, stream, stopped.clone(), slot));
            }
            // So that those who have gone leave nothing behind.
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, stopping));
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::debug!("requests were cut off");
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

async fn converse(
    http: http1::Builder,
    router: Router,
    stream: UnixStream,
    mut stopped: watch::Receiver<()>,
    _slot: OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(router);
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
    }
}
