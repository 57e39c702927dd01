//! The store: one SQLite file per UTC day, one writer, readers that open read-only.
//!
//! Owns everything that knows SQL. A record and its flow's ledger entry are written in one
//! transaction; the ledger lives in the newest segment only. The writer migrates no segment that it
//! does not need: readers read every version.

mod coverage;
mod gaps;
mod peer_events;
mod peer_state;
mod reader;
mod row;
mod schema;
mod segment;
mod state;
mod writer;

use std::path::PathBuf;

pub use coverage::StoredInterval;
pub use peer_events::{PeerNews, StoredEvent};
pub use peer_state::PeerState;
pub use reader::{Reader, StoredFlow};
pub use state::{EntryId, Leaving, State, Sums};
pub use writer::Writer;

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
    #[error("cannot use {path}: check its owner, permissions and disk")]
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
    /// The disk is full, or failing.
    #[error("cannot write to the store: {0}: check the disk's space and health")]
    Sqlite(#[from] rusqlite::Error),
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
    /// A file is no segment, or a newer one.
    #[error("cannot read segment {path}: {source}")]
    Segment {
        /// Which.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// SQLite failed.
    #[error("cannot read segment {path}: {source}: move it away, or restore it from a backup")]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}
