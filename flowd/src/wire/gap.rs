//! Gaps: where something may have gone unrecorded.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::flows::{self, GapSum, Identity, Stage};

/// One gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Gap-free per gateway from 1; `None` while the database has not taken it.
    pub gap_id: Option<u64>,
    /// Where on the way of a packet.
    pub stage: Stage,
    /// `None`: every interface.
    pub interface: Option<String>,
    /// `None`: every peer.
    pub peer: Option<Identity>,
    /// The last instant at which all was well.
    pub from: Timestamp,
    /// `None` while it lasts.
    pub to: Option<Timestamp>,
    /// So many packets may be missing at most; `None`: nobody knows.
    pub packets: Option<u64>,
    /// So many bytes may be missing at most; `None`: nobody knows.
    pub bytes: Option<u64>,
    /// What happened, in one line.
    pub detail: String,
}

impl From<&flows::Gap> for Gap {
    fn from(gap: &flows::Gap) -> Self {
        let flows::Gap { gap_id, stage, interface, peer, opened_ms, closed_ms, bound, detail } =
            gap;
        Self {
            gap_id: (*gap_id != 0).then_some(*gap_id),
            stage: *stage,
            interface: interface.as_deref().map(str::to_owned),
            peer: peer.as_deref().cloned(),
            from: Timestamp(*opened_ms),
            to: closed_ms.map(Timestamp),
            packets: bound.packets,
            bytes: bound.bytes,
            detail: detail.clone(),
        }
    }
}

/// `GET /v1/gaps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GapList {
    /// Of all that match, whether or not they are listed.
    pub sum: GapSum,
    /// Newest first.
    pub gaps: Vec<Gap>,
}

/// The gaps of one stage since the daemon started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageStatus {
    /// Which.
    pub stage: Stage,
    /// Gaps that began.
    pub begun: u64,
    /// Gaps that last.
    pub open: u64,
}
