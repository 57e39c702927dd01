//! What a check of a store's history found, and what of a day is not as it was sealed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Break, Contents, Hash, Seal};

/// What a check of the history found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// Whether nothing is wrong. What is unproven is not wrong.
    pub is_good: bool,
    /// How many the chain has.
    pub statements: u64,
    /// Hash of the last one: kept elsewhere, it proves later that nothing up to it was cut.
    pub head: String,
    /// Every key that signed, oldest first.
    pub keys: Vec<String>,
    /// Each day that has, or had, a file.
    pub days: Vec<DayProof>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is to be known of what is not wrong.
    pub notes: Vec<String>,
}

/// What is known of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayProof {
    /// UTC, YYYY-MM-DD.
    pub day: String,
    /// Name of its file.
    pub file: String,
    /// What is known.
    pub state: DayState,
    /// In it, or that were.
    pub records: u64,
    /// First; `null`: it has no record.
    pub first_record_id: Option<u64>,
    /// Last.
    pub last_record_id: Option<u64>,
}

/// What is known of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DayState {
    /// It is as it was sealed, under a key that is known.
    Proven,
    /// It was removed, and a tombstone under a key that is known says what it had.
    Removed,
    /// Nobody has signed it yet.
    Unproven,
    /// Something is wrong with it.
    Wrong,
}

/// Something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Name of the file.
    pub file: String,
    /// The first record that it is about, where it is about records.
    pub first_record_id: Option<u64>,
    /// The last one.
    pub last_record_id: Option<u64>,
    /// In a sentence.
    pub detail: String,
}

/// Kinds of what can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Something is not as it was signed.
    Edited,
    /// Something that was there is not.
    Cut,
    /// Something is in another place.
    Reordered,
    /// A day's file is not there, and nothing says that it was removed.
    MissingDay,
    /// A key signed that is not known, and that no known one named.
    WrongKey,
    /// A day has no seal although later ones have.
    Unsealed,
}

impl FaultKind {
    /// The word in JSON, as people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Cut => "cut",
            Self::Reordered => "reordered",
            Self::MissingDay => "missing day",
            Self::WrongKey => "wrong key",
            Self::Unsealed => "unsealed",
        }
    }
}

impl Fault {
    /// That is about no records.
    pub fn new(kind: FaultKind, file: &str, detail: impl Into<String>) -> Self {
        let (first_record_id, last_record_id) = (None, None);
        Self { kind, file: file.to_owned(), first_record_id, last_record_id, detail: detail.into() }
    }

    /// About these records, first and last.
    pub fn of_records(kind: FaultKind, file: &str, (first, last): (u64, u64), what: &str) -> Self {
        let records = match first == last {
            true => format!("record {first}"),
            false => format!("records {first} to {last}"),
        };
        Self {
            first_record_id: Some(first),
            last_record_id: Some(last),
            ..Self::new(kind, file, format!("{records}: {what}"))
        }
    }

    /// What is wrong with the chain itself.
    pub fn of_break(file: &str, of: &Break) -> Self {
        let (kind, detail) = match of {
            Break::Unreadable(line) => {
                (FaultKind::Edited, format!("line {line} is no statement of flowd"))
            }
            Break::Newer(number) => (
                FaultKind::Edited,
                format!("statement {number} is of a newer flowd: update this one"),
            ),
            Break::Edited(number) => {
                (FaultKind::Edited, format!("statement {number} is not as its key signed it"))
            }
            Break::Reordered(number) => {
                (FaultKind::Reordered, format!("statement {number} is not in its place"))
            }
            Break::Missing(first, last) => {
                (FaultKind::Cut, format!("statements {first} to {last} are not there"))
            }
            Break::Unlinked(number) => (
                FaultKind::Edited,
                format!("statement {number} follows another one than the one before it"),
            ),
            Break::Stranger(number) => (
                FaultKind::WrongKey,
                format!("statement {number} is signed with a key whose turn it is not"),
            ),
        };
        Self::new(kind, file, detail)
    }
}

impl Seal {
    /// What of a file is not as it was sealed. `contents` are of the seal's own bounds and ranges.
    pub fn compare(&self, file: &str, contents: &Contents) -> Vec<Fault> {
        let mut faults = Vec::new();
        let records = |kind, ids, what| Fault::of_records(kind, file, ids, what);
        if let Some(ids) = contents.outside {
            let what = "they were not there when the day was sealed";
            faults.push(records(FaultKind::Edited, ids, what));
        }
        for ids in &contents.holes {
            let what = "cut: they were there when the day was sealed";
            faults.push(records(FaultKind::Cut, *ids, what));
        }
        for id in &contents.disorder {
            let what = "it is there twice, or out of order";
            faults.push(records(FaultKind::Reordered, (*id, *id), what));
        }
        let has_hole = |(first, last): (u64, u64)| {
            contents.holes.iter().any(|(from, to)| *from <= last && first <= *to)
        };
        let found = contents.ranges.iter().map(Some).chain(std::iter::repeat(None));
        let changed = self.ranges.iter().zip(found).enumerate();
        let changed = changed.filter(|(_, (sealed, found))| Some(*sealed) != *found);
        let mut edited: Vec<(u64, u64)> = Vec::new();
        for ids in changed.filter_map(|(index, _)| self.range(index)) {
            match edited.last_mut() {
                // What is cut out of a range makes its hash another one.
                _ if has_hole(ids) => {}
                Some((_, last)) if *last + 1 == ids.0 => *last = ids.1,
                _ => edited.push(ids),
            }
        }
        for ids in edited {
            let what = "one or more of them are not as they were sealed, or not in that order";
            faults.push(records(FaultKind::Edited, ids, what));
        }
        for name in self.sections.keys().chain(contents.sections.keys()) {
            let (sealed, found) = (self.sections.get(name), contents.sections.get(name));
            let is_told = faults.iter().any(|fault| fault.detail.starts_with(&table(name)));
            if sealed != found && !is_told {
                let rows = |of: Option<&super::SectionSeal>| of.map_or(0, |of| of.rows);
                let detail = format!(
                    "{} not as they were sealed: {} rows then, {} now",
                    table(name),
                    rows(sealed),
                    rows(found)
                );
                faults.push(Fault::new(FaultKind::Edited, file, detail));
            }
        }
        faults
    }
}

/// The start of a sentence about a section.
fn table(name: &str) -> String {
    format!("its {} are", name.replace('_', " "))
}

/// The hash as a report has it; empty where there is none.
pub(super) fn told(hash: Hash) -> String {
    if hash == Hash::default() { String::new() } else { hash.to_string() }
}

impl Proof {
    /// Of a chain, with nothing found yet.
    pub fn begin(chain: &super::Chain) -> Self {
        let (statements, head) = chain.head;
        Self {
            statements,
            head: told(head),
            keys: chain.keys().iter().map(|(key, ..)| key.to_string()).collect(),
            ..Self::default()
        }
    }
}
