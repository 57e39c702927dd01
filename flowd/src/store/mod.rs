//! The store: one SQLite file per UTC day, one writer, readers that open read-only.
//!
//! Owns everything that knows SQL. A record and its flow's ledger entry are written in one
//! transaction; the ledger lives in the newest segment only. The writer migrates no segment that it
//! does not need: readers read every version.

mod ahead;
mod aside;
mod audit;
mod batch;
mod bulk;
mod chunks;
mod columns;
mod content;
mod coverage;
mod daily;
mod digests;
mod failure;
mod gaps;
mod inventory;
mod keys;
mod known;
mod latest;
mod leash;
mod ledger;
mod listed;
mod newest;
mod opened;
mod opening;
mod peer_events;
mod peer_state;
mod proof;
mod ranked;
mod reader;
mod relay;
mod retention;
mod row;
mod salvage;
mod scan;
mod schema;
mod sealing;
mod second;
mod segment;
mod served;
mod signing;
mod sought;
mod source;
pub mod sql;
mod state;
mod step;
mod tail;
mod tallies;
mod total;
mod totals;
mod verify;
mod view;
mod walk;
mod wanted;
mod writer;

use std::{path::PathBuf, time::Duration};

pub use aside::SetAside;
pub use audit::{AuditError, AuditFilter, AuditReader, AuditWriter};
pub use coverage::StoredInterval;
pub use inventory::{SegmentInfo, SegmentState};
pub use leash::Leash;
pub use opened::Reached;
pub use peer_events::{PeerNews, StoredEvent};
pub use peer_state::PeerState;
pub use proof::{ProveError, prove};
pub use ranked::{Place, RankedPage};
pub use reader::{Reader, StoredFlow};
pub use retention::{KeepError, Keeper, Kept, MaxBytes, NotASize, Retention};
pub use signing::{SealError, read_chain, rotate_key, sign, signed};
pub use state::{EntryId, Leaving, State, Sums};
pub use step::{Compactor, Step, StepError, TAIL_RECORDS};
pub use totals::TotalsError;
pub use verify::{Verified, verify_files, verify_store};
pub use writer::Writer;

#[cfg(test)]
mod anchor_tests;
#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod seal_tests;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod trouble_tests;

/// When a committed record is safe from a power failure. A killed daemon loses nothing either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// When the log is next folded into its file: what the last transactions wrote may be lost,
    /// records and ledger together.
    #[default]
    Normal,
    /// At once.
    Full,
}

/// What the text of a policy is called in the store's directory `policy`.
pub fn policy_file(revision: u32) -> String {
    format!("{revision:010}.toml")
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("the store {0} is in use by another flowd: stop it, or set another `store`")]
    InUse(PathBuf),
    #[error("the store belongs to gateway {found}: set `gateway` to it, or set another `store`")]
    OtherGateway { found: String },
    #[error("it is no segment of flowd: move it away, or set another `store`")]
    Foreign,
    #[error("it has schema version {found}, this flowd knows up to {known}: update flowd")]
    TooNew { found: i64, known: usize },
    #[error("cannot use {path}: {source}: check its owner, permissions and disk")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("SQLite cannot read it: move it away, or restore it from a backup")]
    Sqlite(#[from] rusqlite::Error),
    #[error("cannot open segment {path}: {source}")]
    Segment { path: PathBuf, source: Box<OpenError> },
}

/// Records could not be written; nothing of them was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The segment of a new day.
    #[error(transparent)]
    Segment(#[from] OpenError),
    /// The disk is full, read-only, or failing.
    #[error("cannot write to the store: {}", failure::with_remedy(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// The segment is damaged, and another one is to be begun.
    #[error("{0}; flowd begins another one")]
    Damaged(SetAside),
    /// A damaged segment cannot be renamed.
    #[error("cannot set the damaged segment {path} aside: {source}: check the disk")]
    NotSetAside {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another one needs the ledger of the one that was set aside.
    #[error("a segment was set aside; the next one needs to know what is recorded")]
    LedgerWanted,
}

/// A query cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory of the segments cannot be listed.
    #[error("cannot list {path}: {source}: check its owner and permissions")]
    List {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The sums of the days that have gone.
    #[error(transparent)]
    Totals(TotalsError),
    /// A file is no segment, or a newer one.
    #[error("cannot read segment {path}: {source}")]
    Segment {
        /// Which.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// What is in the file cannot be right.
    #[error(
        "segment {path} is damaged ({source}): flowd sets it aside, ask again; \
         `flowctl segments list` names what is missing then"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It takes too long.
    #[error(
        "the query took longer than {} s: narrow its range or its filters, or raise \
         `api.query_timeout_ms`", .0.as_secs_f64()
    )]
    TooLong(Duration),
    /// Nobody waits for the answer.
    #[error("nobody waits for the answer any more")]
    Abandoned,
    /// The answer would take too much memory.
    #[error("there are more than {0} groups: narrow the range or the filters, or group by less")]
    TooManyGroups(usize),
    /// A statement of SQL is wrong, or would do what none may.
    #[error("{0}")]
    Statement(String),
    /// A statement takes too much memory.
    #[error(
        "the statement needs more than {0} MiB of memory: narrow its range, or select and group \
         by less"
    )]
    TooMuchMemory(i64),
    /// A statement fills the disk with temporary files.
    #[error(
        "the statement fills half of what is free in {}: narrow its range, sort or group by less, \
         or name a larger disk in flowd's environment (SQLITE_TMPDIR)", .0.display()
    )]
    TooLittleRoom(PathBuf),
    /// Temporary files cannot be written.
    #[error("cannot sort what the statement asks for: {0}")]
    Temporary(String),
    /// A query was not done with a segment when it went.
    #[error("a day was removed from the store while the query read it: ask again")]
    Removed,
    /// What the daemon knows besides the store is not to be had.
    #[error("{0}")]
    Beside(String),
    /// SQLite failed.
    #[error("cannot read segment {path}: {}", failure::with_remedy(source))]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}
