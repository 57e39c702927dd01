//! `totals.sqlite`: what is left of the days whose records have gone. It is kept for ever.
//!
//! A day that has a segment is not read from here, even if it is in here: the segment is about to
//! go, or somebody has put it back.

use std::{
    fs::{OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::{failure, segment::record_ids};
use crate::flows::{Counters, DayTotal, Verdict};

/// Marks a file as flowd's sums ("flwt").
const APPLICATION_ID: i64 = 0x666c_7774;

/// Entry `n` takes a file from version `n` to `n + 1`. Append only: never edit a released entry.
const MIGRATIONS: &[&str] = &["
CREATE TABLE day (
    day             TEXT PRIMARY KEY CHECK (length(day) = 10), -- UTC, YYYY-MM-DD
    gateway         TEXT NOT NULL,
    removed         INTEGER NOT NULL, -- Unix milliseconds
    reason          TEXT NOT NULL CHECK (reason IN ('age', 'bytes')),
    records         INTEGER NOT NULL,
    flows           INTEGER NOT NULL,
    rx_packets      INTEGER NOT NULL,
    rx_bytes        INTEGER NOT NULL,
    tx_packets      INTEGER NOT NULL,
    tx_bytes        INTEGER NOT NULL,
    first_record_id INTEGER, -- NULL: it had no record
    last_record_id  INTEGER,
    file_bytes      INTEGER NOT NULL,
    sha256          TEXT NOT NULL CHECK (length(sha256) = 64) -- of the file, hex
) STRICT, WITHOUT ROWID;
-- What each peer did, by the names that it had on the day.
CREATE TABLE peer_day (
    day        TEXT NOT NULL REFERENCES day,
    interface  TEXT NOT NULL,
    public_key TEXT, -- NULL: of no known peer
    name       TEXT,
    user       TEXT,
    device     TEXT,
    verdict    INTEGER NOT NULL,
    records    INTEGER NOT NULL,
    flows      INTEGER NOT NULL,
    rx_packets INTEGER NOT NULL,
    rx_bytes   INTEGER NOT NULL,
    tx_packets INTEGER NOT NULL,
    tx_bytes   INTEGER NOT NULL
) STRICT;
CREATE INDEX peer_day_by_day ON peer_day (day);
CREATE INDEX peer_day_by_peer ON peer_day (public_key, day);
"];

/// The sums cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TotalsError {
    /// SQLite says so.
    #[error("cannot use {path}: {}", failure::with_remedy(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It belongs to something else, or to a newer flowd.
    #[error("{0} is no file of sums that this flowd knows: move it away, or update flowd")]
    Unknown(PathBuf),
    /// It cannot be made.
    #[error("cannot make {path}: {source}: check its owner, permissions and disk")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Why a segment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Age,
    Bytes,
}

impl Reason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
        }
    }

    fn from_word(word: &str) -> Self {
        if word == "age" { Self::Age } else { Self::Bytes }
    }
}

/// A day whose records have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) day: String,
    pub(super) gateway: String,
    pub(super) removed_ms: i64,
    pub(super) reason: Reason,
    pub(super) records: u64,
    pub(super) flows: u64,
    pub(super) counters: Counters,
    /// First and last; `None`: it had no record.
    pub(super) record_ids: Option<(u64, u64)>,
    pub(super) file_bytes: u64,
    pub(super) sha256: String,
}

/// The sums of each peer, in a segment that has them, and in one that is older.
const SUMS: &str = "total";
const COUNTED: &str = "(SELECT interface_id, coalesce(peer_id, 0) AS peer_id, verdict, \
    count(*) AS records, sum(overflow = 0 AND rx_packets = rx_packets_total \
    AND rx_bytes = rx_bytes_total AND tx_packets = tx_packets_total \
    AND tx_bytes = tx_bytes_total) AS flows, sum(rx_packets) AS rx_packets, \
    sum(rx_bytes) AS rx_bytes, sum(tx_packets) AS tx_packets, sum(tx_bytes) AS tx_bytes \
    FROM record GROUP BY 1, 2, 3)";

impl Day {
    /// What a segment has, as if nobody had removed it yet.
    pub(super) fn of(
        conn: &Connection,
        day: &str,
        version: usize,
    ) -> rusqlite::Result<(Self, Vec<DayTotal>)> {
        let sums = if version < 4 { COUNTED } else { SUMS };
        let mut query = conn.prepare(&format!(
            "SELECT interface.name, public_key, peer.name, user, device, verdict, sum(records), \
             sum(flows), sum(rx_packets), sum(rx_bytes), sum(tx_packets), sum(tx_bytes) \
             FROM {sums} JOIN interface USING (interface_id) LEFT JOIN peer USING (peer_id) \
             GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
        ))?;
        let peers = query
            .query_map([], |row| peer_day(day.to_owned(), row, 0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let gateway = conn.query_row("SELECT gateway FROM meta", [], |row| row.get(0))?;
        let record_ids = record_ids(conn)?;
        let mut sums = Self {
            day: day.to_owned(),
            gateway,
            removed_ms: 0,
            reason: Reason::Age,
            records: 0,
            flows: 0,
            counters: Counters::default(),
            record_ids,
            file_bytes: 0,
            sha256: String::new(),
        };
        for peer in &peers {
            sums.records += peer.records;
            sums.flows += peer.flows;
            sums.counters += peer.counters;
        }
        Ok((sums, peers))
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Totals {
    path: PathBuf,
    conn: Connection,
}

impl Totals {
    /// Opens the sums of a store for writing, makes the file where there is none.
    pub(super) fn open(store: &Path) -> Result<Self, TotalsError> {
        let path = path(store);
        let mut file = OpenOptions::new();
        file.create(true).truncate(false).write(true).mode(0o640);
        file.open(&path)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o640)))
            .map_err(|source| TotalsError::Io { path: path.clone(), source })?;
        let open = || -> rusqlite::Result<Option<Connection>> {
            let mut conn = Connection::open(&path)?;
            // A segment is deleted as soon as it is in here.
            conn.pragma_update(None, "synchronous", "extra")?;
            let Some(found) = version(&conn)? else { return Ok(None) };
            if found < MIGRATIONS.len() {
                let tx = conn.transaction()?;
                for sql in &MIGRATIONS[found..] {
                    tx.execute_batch(sql)?;
                }
                tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
                tx.commit()?;
            }
            Ok(Some(conn))
        };
        match open() {
            Ok(Some(conn)) => Ok(Self { path, conn }),
            Ok(None) => Err(TotalsError::Unknown(path)),
            Err(source) => Err(TotalsError::Sqlite { path, source }),
        }
    }

    /// Keeps a day for ever. `false`: another file of this day is kept already.
    pub(super) fn keep(&mut self, day: &Day, peers: &[DayTotal]) -> Result<bool, TotalsError> {
        let Self { path, conn } = self;
        insert(conn, day, peers)
            .map_err(|source| TotalsError::Sqlite { path: path.clone(), source })
    }
}

/// Every day that has gone, oldest first.
pub(super) fn days(store: &Path) -> Result<Vec<Day>, TotalsError> {
    let sql = "SELECT day, gateway, removed, reason, records, flows, rx_packets, rx_bytes, \
               tx_packets, tx_bytes, first_record_id, last_record_id, file_bytes, sha256 \
               FROM day ORDER BY day";
    read(store, sql, |row| {
        let (first, last): (Option<i64>, Option<i64>) = (row.get(10)?, row.get(11)?);
        Ok(Day {
            day: row.get(0)?,
            gateway: row.get(1)?,
            removed_ms: row.get(2)?,
            reason: Reason::from_word(&row.get::<_, String>(3)?),
            records: count(row, 4)?,
            flows: count(row, 5)?,
            counters: counters(row, 6)?,
            record_ids: first.map(i64::cast_unsigned).zip(last.map(i64::cast_unsigned)),
            file_bytes: count(row, 12)?,
            sha256: row.get(13)?,
        })
    })
}

/// What each peer did on the days that have gone.
pub(super) fn peer_days(store: &Path) -> Result<Vec<DayTotal>, TotalsError> {
    let sql = "SELECT day, interface, public_key, name, user, device, verdict, records, flows, \
               rx_packets, rx_bytes, tx_packets, tx_bytes \
               FROM peer_day ORDER BY 1, 2, 3, 4, 5, 6, 7";
    read(store, sql, |row| peer_day(row.get(0)?, row, 1))
}

/// The rows of the file, if there is one.
fn read<T>(
    store: &Path,
    sql: &str,
    of: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, TotalsError> {
    let path = path(store);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || -> rusqlite::Result<Option<Vec<T>>> {
        let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        match version(&conn)? {
            Some(0) => Ok(Some(Vec::new())),
            Some(_) => {
                conn.prepare(sql)?.query_map([], of)?.collect::<rusqlite::Result<_>>().map(Some)
            }
            None => Ok(None),
        }
    };
    match read() {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => Err(TotalsError::Unknown(path)),
        Err(source) => Err(TotalsError::Sqlite { path, source }),
    }
}

fn path(store: &Path) -> PathBuf {
    store.join("totals.sqlite")
}

/// `None`: not ours, or newer.
fn version(conn: &Connection) -> rusqlite::Result<Option<usize>> {
    let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = version as usize;
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_ours = application == APPLICATION_ID || (version == 0 && objects == 0);
    Ok((is_ours && version <= MIGRATIONS.len()).then_some(version))
}

fn insert(conn: &mut Connection, day: &Day, peers: &[DayTotal]) -> rusqlite::Result<bool> {
    let tx = conn.transaction()?;
    let known: Option<String> = tx
        .query_row("SELECT sha256 FROM day WHERE day = ?", [&day.day], |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known == day.sha256);
    }
    let c = &day.counters;
    tx.execute(
        "INSERT INTO day VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            day.day,
            day.gateway,
            day.removed_ms,
            day.reason.word(),
            day.records.cast_signed(),
            day.flows.cast_signed(),
            c.rx_packets.cast_signed(),
            c.rx_bytes.cast_signed(),
            c.tx_packets.cast_signed(),
            c.tx_bytes.cast_signed(),
            day.record_ids.map(|(first, _)| first.cast_signed()),
            day.record_ids.map(|(_, last)| last.cast_signed()),
            day.file_bytes.cast_signed(),
            day.sha256,
        ],
    )?;
    for peer in peers {
        let DayTotal { public_key, name, user, device, counters: c, .. } = peer;
        tx.prepare_cached("INSERT INTO peer_day VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
            day.day,
            peer.interface,
            public_key,
            name,
            user,
            device,
            peer.verdict.number(),
            peer.records.cast_signed(),
            peer.flows.cast_signed(),
            c.rx_packets.cast_signed(),
            c.rx_bytes.cast_signed(),
            c.tx_packets.cast_signed(),
            c.tx_bytes.cast_signed(),
        ])?;
    }
    tx.commit()?;
    Ok(true)
}

/// From the column of the interface on.
fn peer_day(day: String, row: &Row<'_>, from: usize) -> rusqlite::Result<DayTotal> {
    let number: u8 = row.get(from + 5)?;
    Ok(DayTotal {
        day,
        interface: row.get(from)?,
        public_key: row.get(from + 1)?,
        name: row.get(from + 2)?,
        user: row.get(from + 3)?,
        device: row.get(from + 4)?,
        verdict: Verdict::from_number(number)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(from + 5, number.into()))?,
        records: count(row, from + 6)?,
        flows: count(row, from + 7)?,
        counters: counters(row, from + 8)?,
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn counters(row: &Row<'_>, column: usize) -> rusqlite::Result<Counters> {
    Ok(Counters {
        rx_packets: count(row, column)?,
        rx_bytes: count(row, column + 1)?,
        tx_packets: count(row, column + 2)?,
        tx_bytes: count(row, column + 3)?,
    })
}
