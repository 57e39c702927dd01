//! How the daemon is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Gap, StageStatus, Timestamp};
use crate::flows::Counters;

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Id of this gateway.
    pub gateway: String,
    /// When the daemon was ready.
    pub started: Timestamp,
    /// Now, by the daemon's clock.
    pub now: Timestamp,
    /// Every interface that is or was watched since the start.
    pub interfaces: Vec<InterfaceStatus>,
    /// The kernel's flow table.
    pub flow_table: TableStatus,
    /// Reading it.
    pub drain: DrainStatus,
    /// The database.
    pub store: StoreStatus,
    /// The policy.
    pub policy: PolicyStatus,
    /// The gaps of every stage since the start.
    pub gaps: Vec<StageStatus>,
    /// Gaps that last, up to ten.
    pub open_gaps: Vec<Gap>,
}

/// One WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: u32,
    /// `kernel` or `userspace`.
    pub backend: String,
    /// `tcx`, `clsact`, or `detached`.
    pub attached_by: String,
    /// When flowd attached.
    pub since: Timestamp,
    /// The tcx programs that see what is received, in the order in which they run; empty without
    /// tcx.
    pub ingress: Vec<ProgramStatus>,
    /// The same for what is sent.
    pub egress: Vec<ProgramStatus>,
    /// Peers configured on it.
    pub peers: u64,
    /// What flowd saw since it attached: flows, overflow and uncounted together.
    pub seen: Counters,
    /// Of that, in flows.
    pub flows: Counters,
    /// Of that, in overflow buckets.
    pub overflow: Counters,
    /// Of that, in neither, by reason.
    pub uncounted: Vec<NamedTally>,
    /// By how much the segments of super-packets exceed the buffers that carried them.
    pub coalesced: Counters,
    /// What the policy dropped; it is in flows, overflow or uncounted as well. The device has not
    /// seen what was dropped on the way to the peer.
    pub dropped: Counters,
    /// What the device itself counted since flowd attached.
    pub device: Counters,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramStatus {
    /// Its number in the kernel.
    pub id: u32,
    /// Its name; `None`: flowd may not ask for it.
    pub name: Option<String>,
    /// Whether it is this flowd's.
    pub own: bool,
}

/// A counter with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedTally {
    /// The reason, such as `truncated`.
    pub reason: String,
    /// The counts.
    #[serde(flatten)]
    pub counters: Counters,
}

/// How full the kernel's flow table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableStatus {
    /// Flows at the last drain.
    pub entries: u64,
    /// Flows that fit.
    pub capacity: u64,
}

/// Reading the kernel's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainStatus {
    /// Drains since the start.
    pub count: u64,
    /// When the last one ended; `None` before the first.
    pub last: Option<Timestamp>,
    /// How long the last one took, in microseconds.
    pub last_duration_us: u64,
    /// Records written since the start.
    pub records: u64,
    /// Live records that a slow `watch` reader did not get; they are in the store.
    pub watch_skipped: u64,
}

/// The database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// Directory of the segments.
    pub path: String,
    /// Segments in it.
    pub segments: u64,
    /// Bytes on disk, write-ahead logs included.
    pub bytes: u64,
    /// Highest record id; 0: none yet.
    pub last_record_id: u64,
    /// One line when the last write failed; the kernel keeps the counts meanwhile.
    pub error: Option<String>,
    /// Since when writes have failed; `None`: the last one did not.
    pub failing_since: Option<Timestamp>,
    /// Segments that went out of use since the start, damaged or taken away, a line each.
    pub set_aside: Vec<String>,
    /// One line when days that are over could not be closed, sealed or removed the last time.
    #[serde(default)]
    pub keeper_error: Option<String>,
    /// Since when that is so; `None`: all was done.
    #[serde(default)]
    pub keeper_failing_since: Option<Timestamp>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStatus {
    /// Zero: no policy.
    pub revision: u32,
    /// `observe` or `enforce`.
    pub mode: String,
    /// Whether it stays in force while the daemon is down or restarts.
    pub stays: bool,
}
