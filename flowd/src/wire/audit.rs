//! The audit log: who did and read what.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Timestamp, csv_text};
use crate::audit::{Entry, Verdict};

/// One entry; docs/audit.md says what is in which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// From 1, without a hole.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// When the last one was, where an entry stands for several; `None`: it stands for one.
    pub until: Option<Timestamp>,
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
    /// Likewise; of the first one, where an entry stands for several.
    pub pid: Option<u32>,
    /// The program that asked; `None`: it had gone.
    pub executable: Option<String>,
    /// `unix`: over the socket; `self`: flowd itself.
    pub source: String,
    /// To what.
    pub resource: Option<String>,
    /// What there is to say besides.
    #[schema(value_type = Object)]
    pub details: Map<String, Value>,
    /// `done`, `begun`, `refused` or `failed`.
    pub outcome: String,
    /// Hash of the entry before: SHA-256, hexadecimal.
    pub previous: String,
    /// Hash of this entry.
    pub hash: String,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        // What somebody edited is shown as it is.
        let details = serde_json::from_str(&entry.details)
            .unwrap_or_else(|_| Map::from_iter([("no_json".to_owned(), entry.details.into())]));
        Self {
            seq: entry.seq,
            time: Timestamp(entry.at_ms),
            until: entry.until_ms.map(Timestamp),
            count: entry.count,
            event: entry.event,
            actor: entry.actor,
            uid: entry.uid,
            gid: entry.gid,
            pid: entry.pid,
            executable: entry.executable,
            source: entry.source,
            resource: entry.resource,
            details,
            outcome: entry.outcome,
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        }
    }
}

/// `GET /v1/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Newest first; with `after` in the order of their numbers.
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins; `None`: there is none.
    pub next_cursor: Option<String>,
}

/// `GET /v1/audit/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Whether no entry was edited, moved or taken out.
    pub is_whole: bool,
    /// Entries that were looked at.
    pub entries: u64,
    /// Number of the last entry that retention cut off; 0: none.
    pub cut: u64,
    /// The public key that has signed this; `null`: nothing was cut off, or no known key has.
    pub cut_by: Option<String>,
    /// Number of the newest entry.
    pub head_seq: u64,
    /// Its hash: kept elsewhere, it shows later that nothing up to here was taken away.
    pub head_hash: String,
    /// Number of the newest entry that is as a known key has signed it; what is before it is proven,
    /// unless `problems` says otherwise. 0: nothing is.
    pub proven_seq: u64,
    /// When that was signed.
    pub proven_at: Option<Timestamp>,
    /// Why nothing is proven, in a line; `null`: something is, or is wrong.
    pub nothing_proven: Option<String>,
    /// Entries that are there and behind `proven_seq`: nobody has signed them yet.
    pub unproven: u64,
    /// When the first of them was.
    pub unproven_since: Option<Timestamp>,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
    /// Problems that are not told.
    pub more_problems: u64,
}

impl From<Verdict> for AuditVerdict {
    fn from(verdict: Verdict) -> Self {
        let Verdict {
            entries,
            cut,
            cut_by,
            head,
            proven,
            nothing_proven,
            unproven,
            unproven_since_ms,
            problems,
            more_problems,
        } = verdict;
        Self {
            is_whole: problems.is_empty(),
            entries,
            cut,
            cut_by: cut_by.map(|key| key.to_string()),
            head_seq: head.seq,
            head_hash: head.hash.to_string(),
            proven_seq: proven.map_or(0, |anchor| anchor.head.seq),
            proven_at: proven.map(|anchor| Timestamp(anchor.at_ms)),
            nothing_proven: nothing_proven.map(str::to_owned),
            unproven,
            unproven_since: unproven_since_ms.map(Timestamp),
            problems,
            more_problems,
        }
    }
}

/// The columns of an entry.
pub const AUDIT_CSV_COLUMNS: [&str; 16] = [
    "seq",
    "time",
    "until",
    "count",
    "event",
    "actor",
    "uid",
    "gid",
    "pid",
    "executable",
    "source",
    "resource",
    "details",
    "outcome",
    "previous",
    "hash",
];

/// The cells of an entry, in the order of [`AUDIT_CSV_COLUMNS`].
pub fn audit_csv_row(entry: &AuditEntry) -> Vec<String> {
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.as_deref().map(csv_text).unwrap_or_default();
    vec![
        entry.seq.to_string(),
        entry.time.to_string(),
        entry.until.map(|until| until.to_string()).unwrap_or_default(),
        entry.count.to_string(),
        csv_text(&entry.event),
        csv_text(&entry.actor),
        number(entry.uid),
        number(entry.gid),
        number(entry.pid),
        text(&entry.executable),
        csv_text(&entry.source),
        text(&entry.resource),
        Value::Object(entry.details.clone()).to_string(),
        csv_text(&entry.outcome),
        entry.previous.clone(),
        entry.hash.clone(),
    ]
}
