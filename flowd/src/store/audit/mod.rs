//! `audit.sqlite`: the audit log, apart from the segments, with a time of its own.
//!
//! Rows are only ever added, each behind the one before; triggers say so to whoever else opens the
//! file. What a checkpoint covers, and nothing else, may be deleted.

mod reader;
mod writer;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

pub use self::{reader::AuditReader, writer::AuditWriter};
use super::{SealError, failure};
use crate::audit::Outcome;

/// Marks a file as flowd's audit log ("flwa").
const APPLICATION_ID: i64 = 0x666c_7761;

/// Entry `n` takes a file from version `n` to `n + 1`. Append only: never edit a released entry.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta (gateway TEXT NOT NULL, created INTEGER NOT NULL) STRICT; -- Unix milliseconds
CREATE TABLE entry (
    seq        INTEGER PRIMARY KEY CHECK (seq > 0),
    time       INTEGER NOT NULL, -- Unix milliseconds
    until      INTEGER, -- of the last one; NULL: it stands for one
    count      INTEGER NOT NULL CHECK (count > 0),
    event      TEXT NOT NULL,
    actor      TEXT NOT NULL,
    uid        INTEGER,
    gid        INTEGER,
    pid        INTEGER,
    executable TEXT,
    source     TEXT NOT NULL,
    resource   TEXT,
    details    TEXT NOT NULL, -- an object of JSON
    outcome    TEXT NOT NULL,
    previous   BLOB NOT NULL CHECK (length(previous) = 32), -- hash of the entry before
    hash       BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX entry_by_event ON entry (event);
CREATE INDEX entry_by_actor ON entry (actor);
CREATE TABLE checkpoint (
    seq       INTEGER PRIMARY KEY, -- of the last entry that was cut off
    gateway   TEXT NOT NULL,
    time      INTEGER NOT NULL, -- of that entry, Unix milliseconds
    hash      BLOB NOT NULL CHECK (length(hash) = 32), -- of that entry
    cut       INTEGER NOT NULL, -- when, Unix milliseconds
    key       BLOB CHECK (length(key) = 32), -- Ed25519; NULL: not signed
    signature BLOB CHECK (length(signature) = 64)
) STRICT;
CREATE TRIGGER entry_stands BEFORE UPDATE ON entry
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER entry_stays BEFORE DELETE ON entry
    WHEN old.seq > (SELECT coalesce(max(seq), 0) FROM checkpoint)
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
-- Also because INSERT OR REPLACE deletes without a trigger.
CREATE TRIGGER entry_follows BEFORE INSERT ON entry
    WHEN new.seq IS NOT max((SELECT coalesce(max(seq), 0) FROM entry),
        (SELECT coalesce(max(seq), 0) FROM checkpoint)) + 1
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER checkpoint_stands BEFORE UPDATE ON checkpoint
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER checkpoint_stays BEFORE DELETE ON checkpoint
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER checkpoint_follows BEFORE INSERT ON checkpoint
    WHEN new.seq <= (SELECT coalesce(max(seq), 0) FROM checkpoint)
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
"];

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// SQLite says so.
    #[error("cannot use the audit log {path}: {}", failure::with_remedy(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It belongs to something else, or to a newer flowd.
    #[error("{0} is no audit log that this flowd knows: move it away, or update flowd")]
    Unknown(PathBuf),
    /// It is no file.
    #[error("{0} is a directory: name the log in it, `audit.sqlite`")]
    Directory(PathBuf),
    /// It belongs to another gateway.
    #[error("{path} is the audit log of gateway {found}: set `gateway` to it, or move it away")]
    OtherGateway {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// What is cut off has to be signed.
    #[error(transparent)]
    Sign(#[from] SealError),
    /// It cannot be made, or not be moved.
    #[error("cannot use {path}: {source}: check its owner, permissions and disk")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What is asked of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Unix milliseconds: those that go on at it, or later.
    pub since_ms: Option<i64>,
    /// Unix milliseconds: those that began before it.
    pub until_ms: Option<i64>,
    /// Name of a user, or number.
    pub actor: Option<String>,
    /// A word; what ends in `*` is the start of one.
    pub event: Option<String>,
    /// The whole of it.
    pub resource: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Somewhere in resource, details, actor or program.
    pub text: Option<String>,
    /// Numbers above this one, in ascending order.
    pub after: Option<u64>,
    /// Numbers below this one.
    pub before: Option<u64>,
}

fn path(store: &Path) -> PathBuf {
    store.join("audit.sqlite")
}

/// `None`: not ours, or newer.
fn version(conn: &Connection) -> rusqlite::Result<Option<usize>> {
    let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_ours = application == APPLICATION_ID || (version == 0 && objects == 0);
    let version = version as usize;
    Ok((is_ours && version <= MIGRATIONS.len()).then_some(version))
}

const COLUMNS: &str = "seq, time, until, count, event, actor, uid, gid, pid, executable, source, \
                       resource, details, outcome, previous, hash";
