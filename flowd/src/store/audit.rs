//! `audit.sqlite`: the audit log, apart from the segments, with a time of its own.
//!
//! Rows are only ever added, each behind the one before; triggers say so to whoever else opens the
//! file. What a checkpoint covers, and nothing else, may be deleted.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::ErrorKind,
    ops::ControlFlow,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::failure;
use crate::audit::{
    Chain, Checkpoint, Entry, Folded, Hash, Head, Outcome, Signature, Verdict, word,
};

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
    /// It belongs to another gateway.
    #[error("{path} is the audit log of gateway {found}: set `gateway` to it, or move it away")]
    OtherGateway {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
    },
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

/// The end that adds.
#[derive(Debug)]
pub struct AuditWriter {
    path: PathBuf,
    conn: Connection,
    gateway: String,
    head: Head,
}

impl AuditWriter {
    /// Opens the log of a store, makes it where there is none. One that is damaged is set aside under
    /// the name that comes back, and another one begun.
    pub fn open(
        store: &Path,
        gateway: &str,
        now_ms: i64,
    ) -> Result<(Self, Option<PathBuf>), AuditError> {
        let path = path(store);
        let io = |source| AuditError::Io { path: path.clone(), source };
        fs::create_dir_all(store).map_err(io)?;
        match Self::try_open(&path, gateway, now_ms) {
            Err(AuditError::Sqlite { source, .. }) if failure::is_damage(&source) => {
                let aside = store.join(format!("audit.corrupt-{now_ms}"));
                for suffix in ["", "-wal", "-shm"] {
                    let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                    match fs::rename(of(&path), of(&aside)) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
                        _ => {}
                    }
                }
                let writer = Self::try_open(&path, gateway, now_ms)?;
                Ok((writer, Some(aside)))
            }
            opened => Ok((opened?, None)),
        }
    }

    fn try_open(path: &Path, gateway: &str, now_ms: i64) -> Result<Self, AuditError> {
        let sqlite = |source| AuditError::Sqlite { path: path.to_owned(), source };
        let mut file = OpenOptions::new();
        // Nobody but the daemon: who may read it asks the daemon, which writes that down.
        file.create(true).truncate(false).write(true).mode(0o600);
        file.open(path)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
            .map_err(|source| AuditError::Io { path: path.to_owned(), source })?;
        let mut conn = Connection::open(path).map_err(sqlite)?;
        if !migrate(&mut conn, gateway, now_ms).map_err(sqlite)? {
            return Err(AuditError::Unknown(path.to_owned()));
        }
        let found: String =
            conn.query_row("SELECT gateway FROM meta", [], |row| row.get(0)).map_err(sqlite)?;
        if found != gateway {
            return Err(AuditError::OtherGateway { path: path.to_owned(), found });
        }
        let head = head(&conn).map_err(sqlite)?;
        Ok(Self { path: path.to_owned(), conn, gateway: gateway.to_owned(), head })
    }

    /// Adds entries, all or none; they are on the disk when it comes back.
    pub fn append(&mut self, events: &[Folded]) -> Result<(), AuditError> {
        let Self { path, conn, head, .. } = self;
        match insert(conn, *head, events) {
            Ok(newest) => {
                *head = newest;
                Ok(())
            }
            Err(source) => Err(AuditError::Sqlite { path: path.clone(), source }),
        }
    }

    /// What the daemon before said last of itself, and the version that it had.
    pub fn last_start(&self) -> Result<Option<(String, String)>, AuditError> {
        let sql =
            "SELECT event, details FROM entry WHERE event IN (?, ?) ORDER BY seq DESC LIMIT 1";
        let words = [word::DAEMON_STARTED, word::DAEMON_STOPPED];
        self.conn
            .query_row(sql, words, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(|source| AuditError::Sqlite { path: self.path.clone(), source })
    }

    /// Cuts the entries before an instant off and leaves a checkpoint, for which `sign` may have a
    /// signature. `None`: there are none. The newest entry always stays.
    pub fn cut(
        &mut self,
        before_ms: i64,
        now_ms: i64,
        sign: impl FnOnce(&[u8]) -> Option<Signature>,
    ) -> Result<Option<Checkpoint>, AuditError> {
        let Self { path, conn, gateway, head } = self;
        let cut = || -> rusqlite::Result<Option<Checkpoint>> {
            let tx = conn.transaction()?;
            // In the order of numbers: a clock that was wrong for a while cuts nothing out.
            let sql = "SELECT seq, time, hash FROM entry WHERE seq < coalesce((SELECT min(seq) FROM \
                       entry WHERE coalesce(until, time) >= ?), ?) AND seq < ? \
                       ORDER BY seq DESC LIMIT 1";
            let newest = head.seq.cast_signed();
            let last = tx.query_row(sql, [before_ms, newest, newest], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, [u8; 32]>(2)?))
            });
            let Some((seq, at_ms, hash)) = last.optional()? else { return Ok(None) };
            let mut checkpoint = Checkpoint {
                gateway: gateway.clone(),
                seq: seq.cast_unsigned(),
                at_ms,
                hash: Hash(hash),
                cut_ms: now_ms,
                signature: None,
            };
            checkpoint.signature = sign(&checkpoint.canonical());
            let (key, bytes) = checkpoint.signature.as_ref().map_or((None, None), |signature| {
                (Some(signature.key), Some(signature.bytes.to_vec()))
            });
            let sql = "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?)";
            tx.execute(sql, params![seq, checkpoint.gateway, at_ms, hash, now_ms, key, bytes])?;
            tx.execute("DELETE FROM entry WHERE seq <= ?", [seq])?;
            tx.commit()?;
            Ok(Some(checkpoint))
        };
        cut().map_err(|source| AuditError::Sqlite { path: path.clone(), source })
    }
}

#[cfg(test)]
impl AuditWriter {
    /// From now on the file takes nothing, as on a full disk.
    pub(crate) fn fill(&self) {
        let sql = "CREATE TEMP TRIGGER full BEFORE INSERT ON main.entry \
                   BEGIN SELECT raise(ABORT, 'database or disk is full'); END";
        self.conn.execute_batch(sql).unwrap();
    }

    /// It takes entries again.
    pub(crate) fn empty(&self) {
        self.conn.execute_batch("DROP TRIGGER temp.full").unwrap();
    }
}

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

    /// Shows what matches, the newest first; in ascending order where `after` is given.
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
                if each(entry(row)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Checks every entry; `known` is a head that was kept elsewhere.
    pub fn verify(&self, known: Option<Head>) -> Result<Verdict, AuditError> {
        self.read(|conn| {
            let mut chain = Chain::new(last_checkpoint(conn)?.as_ref(), known);
            let mut query = conn.prepare(&format!("SELECT {COLUMNS} FROM entry ORDER BY seq"))?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                match entry(row) {
                    Ok(entry) => chain.add(&entry),
                    Err(error) if failure::is_damage(&error) => {
                        let hash = row.get(15).map(Hash).unwrap_or_default();
                        chain.unreadable(row.get::<_, i64>(0)?.cast_unsigned(), hash);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(chain.finish())
        })
    }

    /// Everything that is read is of one instant.
    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, AuditError> {
        let Self { path } = self;
        if let Err(source) = fs::File::open(path) {
            return Err(AuditError::Io { path: path.clone(), source });
        }
        let opened = || -> rusqlite::Result<Option<T>> {
            let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
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

/// Brings the schema up to date, or changes nothing. `false`: not ours, or newer.
fn migrate(conn: &mut Connection, gateway: &str, now_ms: i64) -> rusqlite::Result<bool> {
    let Some(found) = version(conn)? else { return Ok(false) };
    conn.pragma_update(None, "journal_mode", "wal")?;
    // What was answered for is on the disk.
    conn.pragma_update(None, "synchronous", "full")?;
    if found == MIGRATIONS.len() {
        return Ok(true);
    }
    let tx = conn.transaction()?;
    for sql in &MIGRATIONS[found..] {
        tx.execute_batch(sql)?;
    }
    if found == 0 {
        tx.execute("INSERT INTO meta VALUES (?, ?)", params![gateway, now_ms])?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    tx.commit()?;
    Ok(true)
}

fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let sql = "SELECT seq, hash FROM entry UNION ALL SELECT seq, hash FROM checkpoint \
               ORDER BY seq DESC LIMIT 1";
    let newest = conn.query_row(sql, [], |row| {
        Ok(Head { seq: row.get::<_, i64>(0)?.cast_unsigned(), hash: Hash(row.get(1)?) })
    });
    newest.optional().map(Option::unwrap_or_default)
}

fn last_checkpoint(conn: &Connection) -> rusqlite::Result<Option<Checkpoint>> {
    let sql = "SELECT seq, gateway, time, hash, cut, key, signature FROM checkpoint \
               ORDER BY seq DESC LIMIT 1";
    conn.query_row(sql, [], |row| {
        let key: Option<[u8; 32]> = row.get(5)?;
        let bytes: Option<[u8; 64]> = row.get(6)?;
        Ok(Checkpoint {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            gateway: row.get(1)?,
            at_ms: row.get(2)?,
            hash: Hash(row.get(3)?),
            cut_ms: row.get(4)?,
            signature: key.zip(bytes).map(|(key, bytes)| Signature { key, bytes }),
        })
    })
    .optional()
}

fn insert(conn: &mut Connection, mut head: Head, events: &[Folded]) -> rusqlite::Result<Head> {
    let tx = conn.transaction()?;
    let sql = format!("INSERT INTO entry ({COLUMNS}) VALUES ({})", ["?"; 16].join(", "));
    let mut insert = tx.prepare_cached(&sql)?;
    for event in events {
        let entry = Entry::behind(head.seq, head.hash, event);
        insert.execute(params![
            entry.seq.cast_signed(),
            entry.at_ms,
            entry.until_ms,
            entry.count.cast_signed(),
            entry.event,
            entry.actor,
            entry.uid,
            entry.gid,
            entry.pid,
            entry.executable,
            entry.source,
            entry.resource,
            entry.details,
            entry.outcome,
            entry.previous.0,
            entry.hash.0,
        ])?;
        head = Head { seq: entry.seq, hash: entry.hash };
    }
    drop(insert);
    failpoint!("audit-inserted");
    tx.commit()?;
    failpoint!("audit-committed");
    Ok(head)
}

const COLUMNS: &str = "seq, time, until, count, event, actor, uid, gid, pid, executable, source, \
                       resource, details, outcome, previous, hash";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get(1)?,
        until_ms: row.get(2)?,
        count: row.get::<_, i64>(3)?.cast_unsigned(),
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
