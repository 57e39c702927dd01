//! Reading a segment that nobody can write: on a full or read-only disk, or damaged.
//!
//! SQLite wants to make files beside the one it reads. The store's lock keeps other writers out, so
//! here it reads without locks, and keeps its index of the log in memory.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    OpenError, aside, gaps::CarriedGaps, peer_state::CarriedPeers, schema, segment,
    segment::Carried, state::State,
};

/// What is known of a segment.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// `None`: it cannot be read.
    pub(super) carried: Option<Carried>,
    /// The highest record id so far, as far as it can be told; 0: it cannot.
    pub(super) last_record_id: u64,
}

/// Everything that the next writer needs; an error when it cannot be read.
pub(super) fn peek(path: &Path) -> Result<Option<Carried>, OpenError> {
    let conn = open(path)?;
    if schema::check(&conn)? == 0 {
        return Ok(None);
    }
    Ok(Some(segment::carried(&conn)?))
}

/// As much as can be read.
pub(super) fn salvage(path: &Path) -> Salvaged {
    let Ok(conn) = open(path) else { return Salvaged::default() };
    // The sums say how many there are where the records themselves cannot be read.
    let counted = || -> rusqlite::Result<u64> {
        let sql = "SELECT coalesce(sum(records), 0) FROM total";
        let records: i64 = conn.query_row(sql, [], |row| row.get(0))?;
        Ok(segment::records_before(&conn)? + records.cast_unsigned())
    };
    let last_record_id = segment::last_record_id(&conn).or_else(|_| counted()).unwrap_or_default();
    let carried = || -> rusqlite::Result<Carried> {
        Ok(Carried {
            ledger: segment::ledger(&conn)?,
            state: State::read(&conn)?,
            // Without it, the next daemon begins to number gaps anew.
            gaps: CarriedGaps::read(&conn).unwrap_or_default(),
            // Without it, sessions and counters of peers begin anew.
            peers: CarriedPeers::read(&conn).unwrap_or_default(),
            last_record_id,
        })
    };
    Salvaged { carried: carried().ok(), last_record_id }
}

/// A file that nobody writes meanwhile.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let log = std::fs::metadata(aside::with(path, "-wal"));
    // Without a log the file is whole; with one, the log is read too.
    let how = match log {
        Ok(log) if log.len() > 0 => "vfs=unix-none",
        _ => "immutable=1",
    };
    let name: String = path.to_string_lossy().bytes().map(escaped).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(format!("file:{name}?mode=ro&{how}"), flags)?;
    // What is read here stays as it is, also its log.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "exclusive")?;
    Ok(conn)
}

/// A byte of a path as it stands in a URI.
fn escaped(byte: u8) -> String {
    match byte {
        b'/' | b'.' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02x}"),
    }
}
