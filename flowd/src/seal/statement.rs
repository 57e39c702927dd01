//! A line of the chain: JSON, a tab, the signature of what stands before the tab.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Contents, Hash, PrivateKey, PublicKey,
    hash::{self, Digits},
};
use crate::flows::Counters;

/// The format of the lines that this version writes.
pub const FORMAT: u32 = 1;
/// What is signed and hashed begins with this, so that no signature serves for anything else.
const DOMAIN: &[u8] = b"flowd seal 1\n";

/// What was said, when, and after what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`FORMAT`].
    pub format: u32,
    /// From 1.
    pub number: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Of whom.
    pub gateway: String,
    /// Whose signature it has.
    pub key: PublicKey,
    /// Hash of the statement before; zeros where there is none.
    pub previous: Hash,
    /// What.
    pub what: What,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// From here on this key signs.
    Key,
    /// From the next statement on another key signs.
    Rotate {
        /// Which.
        next: PublicKey,
    },
    /// What a day has that is over.
    Seal(Seal),
    /// What a day had that has gone.
    Tombstone(Tombstone),
    /// The newest entry of the audit log at that time, as flowd itself wrote it.
    Audit {
        /// Its number.
        sequence: u64,
        /// Its hash.
        hash: Hash,
    },
}

/// What a day has that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// UTC, YYYY-MM-DD.
    pub day: String,
    /// Name of its file.
    pub file: String,
    /// When the file was closed, Unix milliseconds; `None`: an older flowd wrote it.
    pub closed_ms: Option<i64>,
    /// Whether it had lain closed before it was sealed: what happened to it in between is not
    /// proven.
    pub is_late: bool,
    /// The day that the same records were sealed as before the file was called after this one.
    pub was: Option<String>,
    /// `None`: it has no record.
    pub first_record_id: Option<u64>,
    /// The same.
    pub last_record_id: Option<u64>,
    /// How many there are.
    pub records: u64,
    /// That began on the day.
    pub flows: u64,
    /// What the records did.
    pub counters: Counters,
    /// Record ids of one range.
    pub range_ids: u64,
    /// Of each range: those of ids with the same quotient by `range_ids`.
    pub ranges: Vec<Hash>,
    /// What is there besides records.
    pub sections: BTreeMap<String, SectionSeal>,
    /// Of all of it.
    pub content: Hash,
}

/// Rows of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionSeal {
    /// How many.
    pub rows: u64,
    /// Of all of them.
    pub sha256: Hash,
}

/// What a day had that has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// UTC, YYYY-MM-DD.
    pub day: String,
    /// Hash of the statement that sealed it; `None`: none did.
    pub seal: Option<Hash>,
    /// It was not as it was sealed, and flowd signed that it went, not what it had.
    #[serde(default, skip_serializing_if = "is_not")]
    pub has_changed: bool,
    /// Why it went: `age` or `bytes`.
    pub reason: String,
    /// `None`: it had no record.
    pub first_record_id: Option<u64>,
    /// The same.
    pub last_record_id: Option<u64>,
    /// How many there were.
    pub records: u64,
    /// That began on the day.
    pub flows: u64,
    /// What the records did.
    pub counters: Counters,
    /// Length of the file.
    pub file_bytes: u64,
    /// Of the file as it was.
    pub file_sha256: Hash,
    /// What each peer did, as it is kept for ever.
    pub peers: SectionSeal,
}

impl Seal {
    /// First and last id; `None`: it has no record.
    pub fn record_ids(&self) -> Option<(u64, u64)> {
        self.first_record_id.zip(self.last_record_id)
    }

    /// The records whose hash is that of a range, first and last.
    pub fn range(&self, index: usize) -> Option<(u64, u64)> {
        let (first, last) = self.record_ids()?;
        let start = (first / self.range_ids + index as u64) * self.range_ids;
        Some((start.max(first), (start + (self.range_ids - 1)).min(last)))
    }

    /// Whether the hashes are one of another.
    pub fn is_whole(&self) -> bool {
        let Self { ranges, sections, content, .. } = self;
        let contents =
            Contents { ranges: ranges.clone(), sections: sections.clone(), ..Contents::default() };
        let is_sane = self.range_ids.is_power_of_two() && self.range_ids < 1 << 63;
        is_sane && contents.sha256() == *content
    }
}

impl Tombstone {
    /// First and last id; `None`: it had no record.
    pub fn record_ids(&self) -> Option<(u64, u64)> {
        self.first_record_id.zip(self.last_record_id)
    }
}

impl Statement {
    /// The line without its end, and its hash. The statement has the key's public half.
    pub fn signed(&self, key: &PrivateKey) -> (String, Hash) {
        let line = serde_json::to_string(self).expect("its keys are texts");
        let message = message(&line);
        let line = format!("{line}\t{}", Digits(&key.sign(&message)));
        (line, Hash::of(&message))
    }

    /// A line without its end, the hash of what it says, and whether its key has signed it.
    pub(super) fn read(line: &str) -> Option<(Self, Hash, bool)> {
        let (said, signature) = line.rsplit_once('\t')?;
        let statement: Self = serde_json::from_str(said).ok()?;
        let message = message(said);
        let is_signed = hash::bytes(signature)
            .is_ok_and(|signature| statement.key.has_signed(&message, &signature));
        Some((statement, Hash::of(&message), is_signed))
    }
}

/// A member that is left out as long as it says nothing.
fn is_not(said: &bool) -> bool {
    !said
}

/// What is signed and hashed of a line.
fn message(said: &str) -> Vec<u8> {
    [DOMAIN, said.as_bytes()].concat()
}
