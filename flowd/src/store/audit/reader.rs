//! The end that reads.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::{AuditError, AuditFilter, COLUMNS, path, version};
use crate::{
    audit::{Chain, Checkpoint, Entry, Hash, Head, Outcome, Signature, Signed, Verdict, word},
    seal::PublicKey,
    store::{aside, failure, read_chain, salvage},
};

/// The end that reads, beside the daemon or without one.
#[derive(Clone, Debug)]
pub struct AuditReader {
    path: PathBuf,
}

impl AuditReader {
    /// Of a store; opens nothing yet.
    pub fn new(store: &Path) -> Self {
        Self { path: path(store) }
    }

    /// Of a file, wherever it is.
    pub fn of_file(file: &Path) -> Self {
        Self { path: file.to_owned() }
    }

    /// Shows what matches, the newest first; in ascending order where `after` is given. Of an entry
    /// with values that nobody writes it shows what can be read.
    pub fn list(
        &self,
        filter: &AuditFilter,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        self.read(|conn| {
            let order = if filter.after.is_some() { "ASC" } else { "DESC" };
            let sql = format!(
                "SELECT {COLUMNS} FROM entry WHERE (?1 IS NULL OR coalesce(until, time) >= ?1) \
                 AND (?2 IS NULL OR time < ?2) AND (?3 IS NULL OR actor = ?3 OR \
                 CAST(uid AS TEXT) = ?3) AND (?4 IS NULL OR event = ?4) \
                 AND (?5 IS NULL OR substr(event, 1, length(?5)) = ?5) \
                 AND (?6 IS NULL OR resource = ?6) AND (?7 IS NULL OR outcome = ?7) \
                 AND (?8 IS NULL OR instr(coalesce(resource, '') || char(10) || details || char(10) \
                 || actor || char(10) || coalesce(executable, ''), ?8)) \
                 AND seq > ?9 AND seq < ?10 ORDER BY seq {order}"
            );
            let prefix = filter.event.as_deref().and_then(|event| event.strip_suffix('*'));
            let exact = filter.event.as_deref().filter(|_| prefix.is_none());
            let mut query = conn.prepare(&sql)?;
            let mut rows = query.query(params![
                filter.since_ms,
                filter.until_ms,
                filter.actor,
                exact,
                prefix,
                filter.resource,
                filter.outcome.map(Outcome::word),
                filter.text,
                i64::try_from(filter.after.unwrap_or(0)).unwrap_or(i64::MAX),
                filter.before.map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX)),
            ])?;
            while let Some(row) = rows.next()? {
                if each(readable(row)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Checks every entry, and what the chain beside the log says of it under `keys`, or under keys
    /// for which it has their word; `known` is a head that was kept elsewhere. What was cut off has to
    /// be signed with one of these keys; with any key where there are none.
    pub fn verify(&self, known: Option<Head>, keys: &[PublicKey]) -> Result<Verdict, AuditError> {
        let store = self.path.parent().unwrap_or(Path::new("."));
        // Before the log: what is signed is in it.
        let signed = Signed::of(&read_chain(store)?, keys);
        self.read(|conn| {
            let mut chain = match last_checkpoint(conn) {
                Err(error) if failure::is_damage(&error) => {
                    let mut chain = Chain::new(None, known, &signed);
                    chain.unreadable_checkpoint();
                    chain
                }
                checkpoint => Chain::new(checkpoint?.as_ref(), known, &signed),
            };
            let mut query = conn.prepare(&format!("SELECT {COLUMNS} FROM entry ORDER BY seq"))?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                match entry(row) {
                    Ok(entry) => chain.add(&entry),
                    Err(error) if failure::is_damage(&error) => {
                        let hash = row.get(15).map(Hash).unwrap_or_default();
                        let at_ms = row.get(1).unwrap_or_default();
                        chain.unreadable(row.get(0)?, at_ms, hash);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(chain.finish())
        })
    }

    /// Hash of the statement of the chain that the log was told of last; `None`: of none.
    pub fn last_statement(&self) -> Result<Option<Hash>, AuditError> {
        let words = [word::SEGMENT_SEALED, word::KEY_CREATED, word::KEY_ROTATED];
        let details = self.read(|conn| {
            let sql = "SELECT details FROM entry WHERE seq = \
                       (SELECT max(seq) FROM entry WHERE event IN (?, ?, ?))";
            conn.query_row(sql, words, |row| row.get::<_, String>(0)).optional()
        })?;
        let said = |details: String| -> Option<Hash> {
            let details: Value = serde_json::from_str(&details).ok()?;
            details["statement_sha256"].as_str()?.parse().ok()
        };
        Ok(details.and_then(said))
    }

    /// Everything that is read is of one instant.
    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, AuditError> {
        let Self { path } = self;
        let io = |source| AuditError::Io { path: path.clone(), source };
        if fs::File::open(path).and_then(|file| file.metadata()).map_err(io)?.is_dir() {
            return Err(AuditError::Directory(path.clone()));
        }
        let opened = || -> rusqlite::Result<Option<T>> {
            let conn = open(path)?;
            if version(&conn)?.is_none_or(|version| version == 0) {
                return Ok(None);
            }
            let tx = conn.unchecked_transaction()?;
            read(&tx).map(Some)
        };
        match opened() {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(AuditError::Unknown(path.clone())),
            Err(source) => Err(AuditError::Sqlite { path: path.clone(), source }),
        }
    }
}

/// A file that the daemon has open has its index of the log beside it. A copy is left as it is, with
/// nothing beside it.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    if aside::with(path, "-shm").exists() {
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    } else {
        salvage::open(path)
    }
}

pub(super) fn last_checkpoint(conn: &Connection) -> rusqlite::Result<Option<Checkpoint>> {
    let sql = "SELECT seq, gateway, time, hash, cut, key, signature FROM checkpoint \
               ORDER BY seq DESC LIMIT 1";
    conn.query_row(sql, [], |row| {
        let key: Option<[u8; 32]> = row.get(5)?;
        let bytes: Option<[u8; 64]> = row.get(6)?;
        Ok(Checkpoint {
            seq: number(row, 0)?,
            gateway: row.get(1)?,
            at_ms: row.get(2)?,
            hash: Hash(row.get(3)?),
            cut_ms: row.get(4)?,
            signature: key
                .and_then(|key| PublicKey::from_bytes(key).ok())
                .zip(bytes)
                .map(|(key, bytes)| Signature { key, bytes }),
        })
    })
    .optional()
}

/// The entry of a number, as far as it can be read; `None`: it is not there.
pub(super) fn at(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Entry>> {
    let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
    let sql = format!("SELECT {COLUMNS} FROM entry WHERE seq = ?");
    conn.query_row(&sql, [seq], readable).optional()
}

fn readable(row: &Row<'_>) -> rusqlite::Result<Entry> {
    match entry(row) {
        Err(error) if failure::is_damage(&error) => legible(row),
        entry => entry,
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: number(row, 0)?,
        at_ms: row.get(1)?,
        until_ms: row.get(2)?,
        count: number(row, 3)?,
        event: row.get(4)?,
        actor: row.get(5)?,
        uid: row.get(6)?,
        gid: row.get(7)?,
        pid: row.get(8)?,
        executable: row.get(9)?,
        source: row.get(10)?,
        resource: row.get(11)?,
        details: row.get(12)?,
        outcome: row.get(13)?,
        previous: Hash(row.get(14)?),
        hash: Hash(row.get(15)?),
    })
}

/// A number that is none below zero.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// What can be read of an entry that somebody edited.
fn legible(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let text = |column: usize| -> rusqlite::Result<Option<String>> {
        let bytes = row.get_ref(column)?.as_bytes_or_null().unwrap_or_default();
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    let always = |column| text(column).map(Option::unwrap_or_default);
    Ok(Entry {
        seq: number(row, 0)?,
        at_ms: row.get(1).unwrap_or_default(),
        until_ms: row.get(2).unwrap_or_default(),
        count: number(row, 3).unwrap_or_default(),
        event: always(4)?,
        actor: always(5)?,
        uid: row.get(6).unwrap_or_default(),
        gid: row.get(7).unwrap_or_default(),
        pid: row.get(8).unwrap_or_default(),
        executable: text(9)?,
        source: always(10)?,
        resource: text(11)?,
        details: always(12)?,
        outcome: always(13)?,
        previous: row.get(14).map(Hash).unwrap_or_default(),
        hash: row.get(15).map(Hash).unwrap_or_default(),
    })
}
