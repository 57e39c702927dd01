//! An entry of the log, and what its hash is made of (docs/audit.md).

use serde_json::Value;

use super::{Hash, event::Actor, fold::Folded};

/// What the text that is hashed begins with. Another form is another number.
const FORM: &str = "flowd-audit-1";

/// One entry, as it is stored: every member is in its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1, without a hole.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Of the last one, where an entry stands for several.
    pub until_ms: Option<i64>,
    /// How many it stands for.
    pub count: u64,
    /// What happened.
    pub event: String,
    /// Name or number of a user, `system`, or `system (auto)`.
    pub actor: String,
    /// `None`: flowd itself.
    pub uid: Option<u32>,
    /// Likewise.
    pub gid: Option<u32>,
    /// Of the first one, where an entry stands for several.
    pub pid: Option<u32>,
    /// File of the program that asked.
    pub executable: Option<String>,
    /// How it came: `unix`, or `self`.
    pub source: String,
    /// To what.
    pub resource: Option<String>,
    /// An object of JSON, as it is stored to the byte.
    pub details: String,
    /// How it ended.
    pub outcome: String,
    /// The hash of the entry before; zeros where there was none.
    pub previous: Hash,
    /// Of all of this.
    pub hash: Hash,
}

impl Entry {
    /// Gives what happened its place behind an entry.
    pub fn behind(seq: u64, previous: Hash, folded: &Folded) -> Self {
        let Folded { event, until_ms, count, pids } = folded;
        let caller = match &event.actor {
            Actor::Caller(caller) => Some(caller),
            Actor::System | Actor::Auto => None,
        };
        let mut details = event.details.clone();
        if pids.len() > 1 {
            let pids: Vec<Value> = pids.iter().map(|pid| Value::from(*pid)).collect();
            details.insert("pids".to_owned(), pids.into());
        }
        let mut entry = Self {
            seq: seq + 1,
            at_ms: event.at_ms,
            until_ms: *until_ms,
            count: *count,
            event: event.word.to_owned(),
            actor: event.actor.to_string(),
            uid: caller.map(|caller| caller.uid),
            gid: caller.map(|caller| caller.gid),
            pid: caller.map(|caller| caller.pid),
            executable: caller.and_then(|caller| caller.executable.clone()),
            source: if caller.is_some() { "unix" } else { "self" }.to_owned(),
            resource: event.resource.clone(),
            details: Value::Object(details).to_string(),
            outcome: event.outcome.word().to_owned(),
            previous,
            hash: Hash::default(),
        };
        entry.hash = entry.computed();
        entry
    }

    /// What the hash has to be.
    pub fn computed(&self) -> Hash {
        Hash::of(&self.canonical())
    }

    /// The bytes that are hashed.
    pub fn canonical(&self) -> Vec<u8> {
        let Self {
            seq,
            at_ms,
            until_ms,
            count,
            event,
            actor,
            uid,
            gid,
            pid,
            executable,
            source,
            resource,
            details,
            outcome,
            previous,
            hash: _,
        } = self;
        let mut text = Text::new(FORM);
        text.member(Some(previous));
        text.member(Some(seq));
        text.member(Some(at_ms));
        text.member(until_ms.as_ref());
        text.member(Some(count));
        text.member(Some(event));
        text.member(Some(actor));
        text.member(uid.as_ref());
        text.member(gid.as_ref());
        text.member(pid.as_ref());
        text.member(executable.as_ref());
        text.member(Some(source));
        text.member(resource.as_ref());
        text.member(Some(details));
        text.member(Some(outcome));
        text.0
    }
}

/// Members one after another, each with its length in bytes, so that no two lists of them are the
/// same text.
pub(super) struct Text(pub(super) Vec<u8>);

impl Text {
    pub(super) fn new(form: &str) -> Self {
        Self(format!("{form}\n").into_bytes())
    }

    /// `LENGTH:TEXT,`, or `-,` for what is not there.
    pub(super) fn member(&mut self, member: Option<&impl ToString>) {
        match member.map(ToString::to_string) {
            Some(text) => {
                self.0.extend_from_slice(format!("{}:{text},", text.len()).as_bytes());
            }
            None => self.0.extend_from_slice(b"-,"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Entry;
    use crate::audit::{Actor, Caller, Event, Folded, Outcome, word};

    /// A chain with every kind of member.
    pub(in crate::audit) fn three() -> Vec<Entry> {
        let caller = Caller {
            uid: 1000,
            gid: 1000,
            pid: 4711,
            groups: vec![27],
            name: Some("zoë".to_owned()),
            executable: Some("/usr/bin/flowctl".to_owned()),
        };
        let at_ms = 1_795_233_600_000;
        let started = Event::new(at_ms, word::DAEMON_STARTED, Actor::System, Outcome::Done)
            .with("version", "0.1.0");
        let query = Event::new(at_ms + 5, word::QUERY, Actor::Caller(caller), Outcome::Done)
            .on("/v1/flows")
            .with("query", serde_json::json!({ "peer": "alice \"the, first\"", "limit": "5" }));
        let gap = Event::new(at_ms + 9, word::AUDIT_GAP, Actor::Auto, Outcome::Failed);
        let many =
            Folded { until_ms: Some(at_ms + 8), count: 3, pids: vec![4711, 4712], event: query };
        let mut entries: Vec<Entry> = Vec::new();
        for folded in [started.into(), many, gap.into()] {
            let (seq, previous) =
                entries.last().map_or_else(Default::default, |last| (last.seq, last.hash));
            entries.push(Entry::behind(seq, previous, &folded));
        }
        entries
    }

    /// Entries of this version stay verifiable: the file never changes.
    #[test]
    fn the_form_is_the_one_that_was_released() {
        let golden = include_str!("golden.txt");
        let told: String = three()
            .iter()
            .map(|entry| {
                format!("{}\n{}\n", String::from_utf8(entry.canonical()).unwrap(), entry.hash)
            })
            .collect();
        assert_eq!(told, golden);
    }
}
