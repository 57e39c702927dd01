//! Bodies of requests: how long one may be and take, and what they take together. An answer that
//! does not wait for the body says that the connection ends with it (RFC 9112, 9.6): who is not told
//! sends the next request into a connection that closes, and never knows what became of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::Semaphore, time::Sleep};

use super::{
    access::{Access, Right},
    error::ApiError,
};
use crate::audit::Caller;

/// Of who may administer: a policy of a hundred thousand rules.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Of who may only read: what is read of a policy takes up to a hundred times its length.
pub(super) const READER_BYTES: usize = 1024 * 1024;
/// What bodies take together of those who may only read.
const ROOM_BYTES: usize = 16 * 1024 * 1024;
/// A body up to this length needs no room.
const SMALL_BYTES: usize = 32 * 1024;
/// Room is given out in pieces of this size.
const PIECE_BYTES: usize = 1024;

/// What bodies may take.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    access: Arc<Access>,
    room: Arc<Semaphore>,
}

impl Bodies {
    /// All of the room is free.
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self { access, room: Arc::new(Semaphore::new(ROOM_BYTES / PIECE_BYTES)) }
    }
}

/// Lets a request through if there is room for its body, and keeps the room until it is answered.
pub(super) async fn admit(
    State(Bodies { access, room }): State<Bodies>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Arc<Caller>>();
    let administers = caller.is_some_and(|caller| access.may(caller, Right::Administer));
    let longest = if administers { MAX_BYTES } else { READER_BYTES };
    DefaultBodyLimit::max(longest).apply(&mut request);
    let said = request.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = said.map_or(longest, |bytes| bytes.min(longest));
    if administers || bytes <= SMALL_BYTES {
        return next.run(request).await;
    }
    let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
    match room.try_acquire_many(pieces) {
        Ok(_room) => next.run(request).await,
        Err(_) => ApiError::Crowded.into_response(),
    }
}

/// Ends a body that takes longer than so, and tells a client whose body is not read to its end that
/// the connection ends with the answer.
pub(super) async fn watch(
    State(patience): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_read = Arc::new(AtomicBool::new(false));
    let late = Box::pin(tokio::time::sleep(patience));
    let request = request.map(|body| Body::new(Watched { body, late, is_read: is_read.clone() }));
    let mut response = next.run(request).await;
    if !is_read.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that was not there in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it took too long")]
struct Late;

/// A body that ends in time, and notes when it has been read to its end.
struct Watched {
    body: Body,
    late: Pin<Box<Sleep>>,
    is_read: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, late, is_read } = self.get_mut();
        if late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(Late))));
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        if frame.is_none() {
            is_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
