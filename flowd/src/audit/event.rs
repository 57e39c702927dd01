//! Something that happened: who did what to what, and how it ended.

use std::fmt;

use serde_json::{Map, Value};

/// The words for what happens. A word is an API: it never changes, and docs/audit.md lists it.
pub mod word {
    /// The daemon began to count.
    pub const DAEMON_STARTED: &str = "daemon.started";
    /// The daemon stopped in order.
    pub const DAEMON_STOPPED: &str = "daemon.stopped";
    /// The daemon before did not stop in order; found at the next start.
    pub const DAEMON_CRASHED: &str = "daemon.crashed";
    /// The daemon before was of another version; found at the next start.
    pub const DAEMON_UPGRADED: &str = "daemon.upgraded";
    /// The daemon runs with another configuration than the one before.
    pub const CONFIGURATION_CHANGED: &str = "configuration.changed";
    /// flowd hangs on an interface.
    pub const PROGRAM_ATTACHED: &str = "program.attached";
    /// flowd took its programs off.
    pub const PROGRAM_DETACHED: &str = "program.detached";
    /// Somebody else took a program of flowd off.
    pub const PROGRAM_TAKEN_OFF: &str = "program.taken_off";
    /// There is another WireGuard interface.
    pub const INTERFACE_ADDED: &str = "interface.added";
    /// There is one less.
    pub const INTERFACE_REMOVED: &str = "interface.removed";
    /// It is called otherwise.
    pub const INTERFACE_RENAMED: &str = "interface.renamed";
    /// An interface has another peer.
    pub const PEER_ADDED: &str = "peer.added";
    /// It has one less.
    pub const PEER_REMOVED: &str = "peer.removed";
    /// Somebody calls it otherwise.
    pub const PEER_RENAMED: &str = "peer.renamed";
    /// Its addresses inside the tunnel are others.
    pub const PEER_ALLOWED_IPS_CHANGED: &str = "peer.allowed_ips_changed";
    /// It goes on from another outer address.
    pub const PEER_ENDPOINT_CHANGED: &str = "peer.endpoint_changed";
    /// WireGuard counts from zero again: somebody made it anew.
    pub const PEER_RESET: &str = "peer.reset";
    /// A session began.
    pub const PEER_SESSION_OPENED: &str = "peer.session_opened";
    /// It is over.
    pub const PEER_SESSION_CLOSED: &str = "peer.session_closed";
    /// Somebody asked.
    pub const QUERY: &str = "query";
    /// Records, or rows, began to stream.
    pub const EXPORT_STARTED: &str = "export.started";
    /// All of them were sent.
    pub const EXPORT_FINISHED: &str = "export.finished";
    /// The client went, or the answer broke off.
    pub const EXPORT_ABORTED: &str = "export.aborted";
    /// Somebody watches records as they are written.
    pub const WATCH_STARTED: &str = "watch.started";
    /// No more.
    pub const WATCH_FINISHED: &str = "watch.finished";
    /// Somebody asked what a policy would do.
    pub const POLICY_CHECKED: &str = "policy.checked";
    /// A policy is about to be put into force; it is not before this entry is on the disk.
    pub const POLICY_REQUESTED: &str = "policy.requested";
    /// A policy is in force.
    pub const POLICY_APPLIED: &str = "policy.applied";
    /// A policy was wrong, or would have hurt; the one before stays.
    pub const POLICY_REFUSED: &str = "policy.refused";
    /// Open flows ended, because the policy says otherwise of them now.
    pub const POLICY_CUT_FLOWS: &str = "policy.cut_flows";
    /// Packets may have gone unrecorded since.
    pub const GAP_OPENED: &str = "gap.opened";
    /// No more.
    pub const GAP_CLOSED: &str = "gap.closed";
    /// The wall clock was set.
    pub const CLOCK_STEPPED: &str = "clock.stepped";
    /// A day is over and its segment is sealed.
    pub const SEGMENT_SEALED: &str = "segment.sealed";
    /// A segment was damaged and is out of use.
    pub const SEGMENT_SET_ASIDE: &str = "segment.set_aside";
    /// Retention removed a segment.
    pub const SEGMENT_REMOVED: &str = "segment.removed";
    /// A key of the gateway was made.
    pub const KEY_CREATED: &str = "key.created";
    /// Another one signs from now on.
    pub const KEY_ROTATED: &str = "key.rotated";
    /// Somebody had the history verified.
    pub const HISTORY_VERIFIED: &str = "history.verified";
    /// Somebody read this log.
    pub const AUDIT_READ: &str = "audit.read";
    /// Somebody had this log verified.
    pub const AUDIT_VERIFIED: &str = "audit.verified";
    /// The old end of this log was cut off.
    pub const AUDIT_CUT: &str = "audit.cut";
    /// Events that are not in this log, and how many.
    pub const AUDIT_GAP: &str = "audit.gap";
    /// This log is not as it was signed; found at a start.
    pub const AUDIT_BROKEN: &str = "audit.broken";
    /// A log before was damaged and is set aside.
    pub const AUDIT_SET_ASIDE: &str = "audit.set_aside";
    /// Somebody who may not.
    pub const ACCESS_REFUSED: &str = "access.refused";
    /// Somebody asked too much at a time.
    pub const ACCESS_LIMITED: &str = "access.limited";
    /// A request that means nothing.
    pub const REQUEST_MALFORMED: &str = "request.malformed";
}

/// Who is at the other end of a Unix socket, as the kernel knew it at connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// As the user database has it; `None`: it has no such user.
    pub name: Option<String>,
    /// File of the process' program; `None`: the process has gone.
    pub executable: Option<String>,
}

impl Caller {
    /// The user's name, or number.
    pub fn who(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }
}

/// Whose deed it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// flowd, because somebody told the machine to start or stop it.
    System,
    /// flowd, of its own accord.
    Auto,
    /// A process on this machine.
    Caller(Caller),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Auto => f.write_str("system (auto)"),
            Self::Caller(caller) => f.write_str(&caller.who()),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As was wanted.
    Done,
    /// It has begun.
    Begun,
    /// It may not be.
    Refused,
    /// It cannot be.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Begun, Self::Refused, Self::Failed];

    /// As it stands in an entry.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Begun => "begun",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// The outcome behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// One of [`word`].
    pub word: &'static str,
    /// Who.
    pub actor: Actor,
    /// To what.
    pub resource: Option<String>,
    /// What there is to say besides.
    pub details: Map<String, Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether who did it did the same a short while ago, which is in the log.
    pub is_again: bool,
}

impl Event {
    /// An event without details.
    pub fn new(at_ms: i64, word: &'static str, actor: Actor, outcome: Outcome) -> Self {
        let details = Map::new();
        Self { at_ms, word, actor, resource: None, details, outcome, is_again: false }
    }

    /// What flowd noticed, or did of its own accord.
    pub fn auto(at_ms: i64, word: &'static str) -> Self {
        Self::new(at_ms, word, Actor::Auto, Outcome::Done)
    }

    /// To what.
    #[must_use]
    pub fn on(self, resource: impl Into<String>) -> Self {
        Self { resource: Some(resource.into()), ..self }
    }

    /// One more detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Whether many of them may be told as one: what somebody read, or was refused, and what comes and
    /// goes. What changes something stands alone.
    pub fn may_fold(&self) -> bool {
        self.comes_and_goes()
            || matches!(
                self.word,
                word::QUERY
                    | word::ACCESS_REFUSED
                    | word::ACCESS_LIMITED
                    | word::REQUEST_MALFORMED
                    | word::POLICY_CHECKED
                    | word::AUDIT_READ
            )
    }

    /// Whether it may happen any number of times without anybody asking for it: peers move, gaps open
    /// and close, programs are fought about.
    pub fn comes_and_goes(&self) -> bool {
        matches!(
            self.word,
            word::PEER_ENDPOINT_CHANGED
                | word::GAP_OPENED
                | word::GAP_CLOSED
                | word::PROGRAM_ATTACHED
                | word::PROGRAM_TAKEN_OFF
        )
    }

    /// Whether whoever did it had no right to, and so none to fill the disk either.
    pub fn is_unwanted(&self) -> bool {
        matches!(self.word, word::ACCESS_REFUSED | word::ACCESS_LIMITED | word::REQUEST_MALFORMED)
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    /// Every word above, in the order of this file.
    fn words() -> Vec<&'static str> {
        let own = include_str!("event.rs").lines().map(str::trim);
        own.filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1)).collect()
    }

    #[test]
    fn the_document_has_every_word() {
        let document = include_str!("../../../docs/audit.md");
        let words = words();
        assert!(words.len() >= 18, "{words:?}");
        for word in words.iter().copied().chain(Outcome::ALL.map(Outcome::word)) {
            assert!(document.contains(&format!("`{word}`")), "{word}");
        }
    }

    #[test]
    fn an_outcome_is_read_as_it_is_written() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_word(outcome.word()), Some(outcome));
        }
    }
}
