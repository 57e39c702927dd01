//! The door of the socket: who comes in is known by what the kernel says, and no user takes all the
//! places.

use std::{collections::HashMap, io, sync::Arc};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    caller,
    flows::now_ms,
    serve::{Guest, Listener, SOCKET},
};
use crate::audit::{Actor, Caller, Event, Log, Outcome, word};

/// Connections at a time of one user who is not root.
const CONNECTIONS_OF_USER: usize = 256;
/// Of all users who are not root: a quarter of the socket's is left to root.
const CONNECTIONS_OF_USERS: usize = SOCKET.connections / 4 * 3;

/// The socket, and who is inside.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    users: Users,
    audit: Log,
}

impl Door {
    /// Of a socket.
    pub(super) fn new(listener: UnixListener, audit: Log) -> Self {
        Self { listener, users: Users::default(), audit }
    }
}

impl Listener for Door {
    type Stream = UnixStream;
    type Guest = Known;

    async fn next(&mut self) -> io::Result<(UnixStream, Known)> {
        loop {
            let (stream, _address) = self.listener.accept().await?;
            if let Some(known) = self.users.admit(&stream, &self.audit) {
                return Ok((stream, known));
            }
        }
    }
}

/// Somebody whom the kernel knows.
#[derive(Debug)]
pub(super) struct Known {
    caller: Arc<Caller>,
    audit: Log,
    /// One of the user's places, and one of all users'; root needs none.
    _places: Option<[OwnedSemaphorePermit; 2]>,
}

impl Guest for Known {
    async fn pass(&mut self) -> Option<Arc<Caller>> {
        let uid = self.caller.uid;
        // Apart: the database of users may take its time.
        let name = tokio::task::spawn_blocking(move || caller::user_name(uid)).await;
        Arc::make_mut(&mut self.caller).name = name.unwrap_or_default();
        Some(self.caller.clone())
    }

    fn speaks_no_http(&self) {
        let actor = Actor::Caller(Caller::clone(&self.caller));
        let event = Event::new(now_ms(), word::REQUEST_MALFORMED, actor, Outcome::Refused);
        self.audit.note(event.with("why", "it is no HTTP/1.1"));
    }
}

/// The connections of each user, and of all of them.
#[derive(Debug)]
struct Users {
    each: HashMap<u32, Arc<Semaphore>>,
    all: Arc<Semaphore>,
}

impl Default for Users {
    fn default() -> Self {
        Self { each: HashMap::new(), all: Arc::new(Semaphore::new(CONNECTIONS_OF_USERS)) }
    }
}

impl Users {
    /// Who it is, and one of that user's places. `None`: nobody knows, or there is none left.
    fn admit(&mut self, stream: &UnixStream, audit: &Log) -> Option<Known> {
        let caller = match caller::of(stream) {
            Ok(caller) => caller,
            Err(error) => {
                tracing::warn!(%error, "a connection is refused: the kernel does not say whose it is");
                return None;
            }
        };
        if caller.uid == 0 {
            return Some(Known { caller: caller.into(), audit: audit.clone(), _places: None });
        }
        let places = self.places(caller.uid);
        if places.is_some() {
            return Some(Known { caller: caller.into(), audit: audit.clone(), _places: places });
        }
        let actor = Actor::Caller(caller);
        let event = Event::new(now_ms(), word::ACCESS_LIMITED, actor, Outcome::Refused);
        audit.note(event.with("connections", CONNECTIONS_OF_USER));
        None
    }

    fn places(&mut self, uid: u32) -> Option<[OwnedSemaphorePermit; 2]> {
        self.each.retain(|_, places| places.available_permits() < CONNECTIONS_OF_USER);
        let own = self.each.entry(uid);
        let own = own.or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS_OF_USER)));
        Some([own.clone().try_acquire_owned().ok()?, self.all.clone().try_acquire_owned().ok()?])
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS_OF_USER, CONNECTIONS_OF_USERS, SOCKET, Users};

    #[test]
    fn neither_one_user_nor_all_of_them_take_every_place() {
        let mut users = Users::default();
        let mut taken = Vec::new();
        for uid in 1..=3 {
            taken.extend((0..CONNECTIONS_OF_USER).map(|_| users.places(uid).unwrap()));
            assert!(users.places(uid).is_none());
        }
        assert_eq!(taken.len(), CONNECTIONS_OF_USERS);
        assert!(users.places(4).is_none() && taken.len() < SOCKET.connections);
        taken.pop();
        assert!(users.places(4).is_some());
    }
}
