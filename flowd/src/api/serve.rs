//! Connections: so many at a time, each with little memory of its own.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use crate::audit::Caller;

/// What a connection holds of a request's head, or of an answer on its way.
const BUFFER_BYTES: usize = 32 * 1024;
/// How long the API waits for requests under way when the daemon stops. `watch` has no end.
const GRACE: Duration = Duration::from_secs(2);
/// Between two attempts while the operating system refuses connections.
const RETRY: Duration = Duration::from_secs(1);

/// What clients may take of the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time; what is more waits in the listener's backlog.
    pub(super) connections: usize,
    /// How long a client may take to say what it wants.
    pub(super) patience: Duration,
    /// How long a connection may last that has one answer; `None`: as long as the client likes, and
    /// any number of answers.
    pub(super) lifetime: Option<Duration>,
}

/// Of the socket, which only some may use.
pub(super) const SOCKET: Limits =
    Limits { connections: 1_024, patience: Duration::from_secs(30), lifetime: None };

/// Where clients connect.
pub(super) trait Listener: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at the other end.
    type Guest: Guest;

    /// The next client. Nobody is lost who waits for it and gives up.
    fn next(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Self::Guest)>> + Send;
}

/// Who is at the other end of a connection, for as long as it lasts.
pub(super) trait Guest: Send + 'static {
    /// What each request has with it, made before the first one; `None`: nothing.
    fn pass(&mut self) -> impl Future<Output = Option<Arc<Caller>>> + Send;

    /// What was sent is no HTTP.
    fn speaks_no_http(&self);
}

/// Whoever asks for nothing but what everybody may have.
impl Guest for () {
    async fn pass(&mut self) -> Option<Arc<Caller>> {
        None
    }

    fn speaks_no_http(&self) {}
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Guest = ();

    async fn next(&mut self) -> io::Result<(TcpStream, ())> {
        Ok((self.accept().await?.0, ()))
    }
}

/// Serves until `shutdown` is done; requests under way may take two seconds longer.
pub(super) async fn serve(
    mut listener: impl Listener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.patience).max_buf_size(BUFFER_BYTES);
    http.keep_alive(limits.lifetime.is_none());
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (slot, client) = accept(&mut listener, &slots) => {
                let (http, router) = (http.clone(), router.clone());
                let conversation = converse(http, router, client, stopped.clone());
                connections.spawn(within(limits.lifetime, conversation, slot));
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

/// Ends a conversation that takes too long.
async fn within(
    limit: Option<Duration>,
    conversation: impl Future<Output = ()>,
    _slot: OwnedSemaphorePermit,
) {
    let Some(limit) = limit else { return conversation.await };
    if tokio::time::timeout(limit, conversation).await.is_err() {
        tracing::debug!("a slow client was cut off");
    }
}

async fn accept<L: Listener>(
    listener: &mut L,
    slots: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, (L::Stream, L::Guest)) {
    let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match listener.next().await {
            Ok(stream) => return (slot, stream),
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
    (stream, mut guest): (impl AsyncRead + AsyncWrite + Unpin + Send + 'static, impl Guest),
    mut stopped: watch::Receiver<()>,
) {
    let pass = guest.pass().await;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(pass) = &pass {
            request.extensions_mut().insert(pass.clone());
        }
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
            guest.speaks_no_http();
        }
    }
}
