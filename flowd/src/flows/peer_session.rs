//! When a peer was there, and from where: what successive looks at WireGuard's peers say.
//!
//! - a handshake while there is no session: it connects
//! - no other handshake for `REJECT_AFTER_TIME`: WireGuard takes no packet of it any more, and it
//!   has disconnected
//! - another outer address within a session: it roams
//! - the peer, or its interface, is gone: it has disconnected

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::record::words;

/// `REJECT_AFTER_TIME` of WireGuard: a session is over so long after its handshake.
const SESSION: Duration = Duration::from_secs(180);
const SESSION_MS: i64 = 180_000;

words! {
    /// What happened to a peer.
    PeerEventKind {
        /// Its interface has it now.
        Added = 1 "added",
        /// Its interface has it no more.
        Removed = 2 "removed",
        /// A session began.
        Connect = 3 "connect",
        /// The session is over.
        Disconnect = 4 "disconnect",
        /// The session goes on from another outer address.
        Roam = 5 "roam",
        /// WireGuard counts from zero again: peer or interface are new ones.
        Reset = 6 "reset",
    }
}

/// One thing that happened to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEvent {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What.
    pub kind: PeerEventKind,
    /// How often WireGuard's counters of the peer had started from zero, this time included.
    pub epoch: u32,
    /// Its outer address from then on.
    pub endpoint: Option<SocketAddr>,
    /// Its outer address until then, when it roams.
    pub was: Option<SocketAddr>,
}

/// An instant by two clocks: one that people set, and one that only runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Unix milliseconds.
    pub wall_ms: i64,
    /// Since any fixed instant.
    pub monotonic: Duration,
}

/// What is remembered of a peer over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSession {
    /// Unix milliseconds of the newest handshake.
    pub handshake_ms: Option<i64>,
    /// Unix milliseconds at which the session began; `None`: there is none.
    pub connected_ms: Option<i64>,
    /// Its outer address.
    pub endpoint: Option<SocketAddr>,
    /// By the clock that only runs: when the session is over.
    expires: Duration,
}

/// One look at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub now: Moment,
    /// Unix milliseconds of the newest handshake.
    pub handshake_ms: Option<i64>,
    /// The outer address.
    pub endpoint: Option<SocketAddr>,
}

impl PeerSession {
    /// As another daemon left it.
    pub fn of(
        handshake_ms: Option<i64>,
        connected_ms: Option<i64>,
        endpoint: Option<SocketAddr>,
    ) -> Self {
        Self { handshake_ms, connected_ms, endpoint, expires: Duration::ZERO }
    }

    /// The first look after a time without any. A session that was there and is there went on: what
    /// happened in between, nobody knows.
    pub fn resume(&mut self, look: &Look, tell: impl FnMut(i64, PeerEventKind)) {
        let known = self.handshake_ms.zip(look.handshake_ms).filter(|(then, now)| now >= then);
        if let (Some(_), Some((_, handshake_ms))) = (self.connected_ms, known) {
            self.handshake_ms = Some(handshake_ms);
            self.expires = expiry(look.now, handshake_ms);
        } else if self.handshake_ms.is_none() {
            // One that was over before anybody looked is no news.
            self.handshake_ms = look
                .handshake_ms
                .filter(|handshake_ms| expiry(look.now, *handshake_ms) <= look.now.monotonic);
        }
        self.observe(look, tell);
    }

    /// Tells what happened since the last look, and when (Unix milliseconds), in order.
    pub fn observe(&mut self, look: &Look, mut tell: impl FnMut(i64, PeerEventKind)) {
        let Look { now, handshake_ms, endpoint } = *look;
        if handshake_ms < self.handshake_ms {
            // A peer that was taken away and added again has forgotten its handshakes.
            self.end(now.wall_ms, &mut tell);
            self.handshake_ms = None;
        }
        if let Some(newer_ms) = handshake_ms.filter(|ms| self.handshake_ms != Some(*ms)) {
            let age = age(now, newer_ms);
            if now.monotonic.saturating_sub(age) >= self.expires {
                self.expire(&mut tell);
            }
            if self.connected_ms.is_none() {
                self.connected_ms = Some(newer_ms);
                self.endpoint = endpoint;
                tell(newer_ms, PeerEventKind::Connect);
            }
            self.handshake_ms = Some(newer_ms);
            self.expires = expiry(now, newer_ms);
        }
        let moved = self.endpoint != endpoint && self.endpoint.is_some() && endpoint.is_some();
        if moved && self.connected_ms.is_some() && now.monotonic < self.expires {
            tell(now.wall_ms, PeerEventKind::Roam);
        }
        self.endpoint = endpoint;
        if now.monotonic >= self.expires {
            self.expire(&mut tell);
        }
    }

    /// The peer is gone.
    pub fn end(&mut self, now_ms: i64, mut tell: impl FnMut(i64, PeerEventKind)) {
        if self.connected_ms.take().is_some() {
            let handshake_ms = self.handshake_ms.unwrap_or(now_ms);
            tell(now_ms.clamp(handshake_ms, handshake_ms + SESSION_MS), PeerEventKind::Disconnect);
        }
    }

    fn expire(&mut self, tell: &mut impl FnMut(i64, PeerEventKind)) {
        if let (Some(_), Some(handshake_ms)) = (self.connected_ms.take(), self.handshake_ms) {
            tell(handshake_ms + SESSION_MS, PeerEventKind::Disconnect);
        }
    }
}

/// How long ago a handshake was; one that lies ahead was now, before the clock was set back.
fn age(now: Moment, handshake_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.wall_ms - handshake_ms).unwrap_or(0))
}

fn expiry(now: Moment, handshake_ms: i64) -> Duration {
    (now.monotonic + SESSION).saturating_sub(age(now, handshake_ms))
}

/// A time in which a peer was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Unix milliseconds; `None`: before the events begin.
    pub connected_ms: Option<i64>,
    /// Unix milliseconds; `None`: it is still there.
    pub disconnected_ms: Option<i64>,
    /// Its outer addresses, and since when it had each.
    pub endpoints: Vec<(i64, SocketAddr)>,
}

/// The sessions that events of one peer tell of, oldest first.
pub fn sessions(events: &[PeerEvent]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for event in events {
        let is_open = sessions.last().is_some_and(|session| session.disconnected_ms.is_none());
        let mut current = match event.kind {
            PeerEventKind::Connect => {
                Session { connected_ms: Some(event.at_ms), ..Session::default() }
            }
            PeerEventKind::Roam | PeerEventKind::Disconnect if is_open => {
                sessions.pop().unwrap_or_default()
            }
            PeerEventKind::Roam | PeerEventKind::Disconnect => Session::default(),
            PeerEventKind::Added | PeerEventKind::Removed | PeerEventKind::Reset => continue,
        };
        if event.kind == PeerEventKind::Disconnect {
            current.disconnected_ms = Some(event.at_ms);
        } else {
            current.endpoints.extend(event.endpoint.map(|endpoint| (event.at_ms, endpoint)));
        }
        sessions.push(current);
    }
    sessions
}

#[cfg(test)]
#[path = "peer_session_tests.rs"]
mod tests;
