//! Room for answers that nobody has read yet, the same for all clients together: whoever asks and
//! does not read takes some of it for as long, and no memory besides.
//!
//! - a small answer needs none
//! - a large one needs its length, a stream what it holds at a time, until the client has read it
//! - where too little is left, the request is refused

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{error::ApiError, records::STREAM_BYTES};

/// Unread bytes of all answers together.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// An answer up to this length needs no room: the connection has as much of its own.
const SMALL_BYTES: usize = 16 * 1024;
/// Room is given out in pieces of this size.
const PIECE_BYTES: usize = 1024;

/// The room of one API.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// All of it is free.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES / PIECE_BYTES)))
    }
}

/// Lets an answer go if there is room for it, and keeps the room until it is read.
pub(super) async fn keep(State(Room(room)): State<Room>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let length = response.body().size_hint().exact();
    let bytes = length.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(STREAM_BYTES);
    if bytes <= SMALL_BYTES {
        return response;
    }
    let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
    match room.try_acquire_many_owned(pieces) {
        Ok(permit) => {
            response.map(|body| Body::new(Held { body, rest: Bytes::new(), _room: permit }))
        }
        Err(_) => ApiError::Busy.into_response(),
    }
}

/// A body that goes to the connection in small parts, the next one when the last one has left.
struct Held {
    body: Body,
    rest: Bytes,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, rest, .. } = self.get_mut();
        if rest.is_empty() {
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // A copy of just this length: it was made in a buffer that grew by doubling.
                    Ok(data) => *rest = Bytes::copy_from_slice(&data),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let part = rest.split_to(rest.len().min(SMALL_BYTES));
        // A copy: the part would keep the whole answer in memory after the room is given back.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first part is taken.
        self.body.size_hint()
    }
}
