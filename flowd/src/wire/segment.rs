//! The segments of the store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::{
    flows::Counters,
    store::{SegmentInfo, SegmentState},
};

/// `GET /v1/segments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentList {
    /// Directory of the files.
    pub path: String,
    /// By day.
    pub segments: Vec<Segment>,
}

/// A file of a UTC day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Segment {
    /// YYYY-MM-DD.
    pub day: String,
    /// `open`, `sealed`, `removed`, `set_aside` or `unreadable`.
    pub state: String,
    /// Its name in the directory.
    pub file: String,
    /// Of the file; of what was removed, when it was.
    pub bytes: u64,
    /// In it.
    pub records: u64,
    /// That began in it.
    pub flows: u64,
    /// What its records did.
    #[serde(flatten)]
    pub counters: Counters,
    /// Absent without records.
    pub first_record_id: Option<u64>,
    /// Absent without records.
    pub last_record_id: Option<u64>,
    /// Of the file that was removed, hex.
    pub sha256: Option<String>,
    /// When it was removed or set aside.
    pub since: Option<Timestamp>,
    /// Why it was removed (`age` or `bytes`), or cannot be read.
    pub why: Option<String>,
}

impl From<SegmentInfo> for Segment {
    fn from(info: SegmentInfo) -> Self {
        let state = match info.state {
            SegmentState::Open => "open",
            SegmentState::Sealed => "sealed",
            SegmentState::Removed => "removed",
            SegmentState::SetAside => "set_aside",
            SegmentState::Unreadable => "unreadable",
        };
        Self {
            day: info.day,
            state: state.to_owned(),
            file: info.file,
            bytes: info.bytes,
            records: info.records,
            flows: info.flows,
            counters: info.counters,
            first_record_id: info.record_ids.map(|(first, _)| first),
            last_record_id: info.record_ids.map(|(_, last)| last),
            sha256: info.sha256,
            since: info.since_ms.map(Timestamp),
            why: info.why,
        }
    }
}
