//! The end that adds, and cuts off what is old.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::ErrorKind,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{APPLICATION_ID, AuditError, COLUMNS, MIGRATIONS, path, reader, version};
use crate::{
    audit::{Anchor, Checkpoint, Entry, Folded, Hash, Head, Signature, Signed, word},
    store::{SealError, failure},
};

/// The end that adds.
#[derive(Debug)]
pub struct AuditWriter {
    path: PathBuf,
    gateway: String,
    /// `None`: the disk takes nothing yet.
    file: Option<OpenFile>,
}

/// The log, and its newest entry.
#[derive(Debug)]
struct OpenFile {
    conn: Connection,
    head: Head,
}

impl AuditWriter {
    /// Opens the log of a store, makes it where there is none. One that is damaged is set aside under
    /// the name that comes back, and another one begun. A disk that is full or read-only is no error:
    /// the log is opened by the first entry that it takes.
    pub fn open(
        store: &Path,
        gateway: &str,
        now_ms: i64,
    ) -> Result<(Self, Option<PathBuf>), AuditError> {
        let path = path(store);
        let io = |source| AuditError::Io { path: path.clone(), source };
        fs::create_dir_all(store).map_err(io)?;
        match OpenFile::of(&path, gateway, now_ms) {
            Err(AuditError::Sqlite { source, .. }) if failure::is_damage(&source) => {
                let aside = store.join(format!("audit.corrupt-{now_ms}"));
                for suffix in ["", "-wal", "-shm"] {
                    let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                    match fs::rename(of(&path), of(&aside)) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
                        _ => {}
                    }
                }
                let file = Some(OpenFile::of(&path, gateway, now_ms)?);
                Ok((Self { path, gateway: gateway.to_owned(), file }, Some(aside)))
            }
            Err(error) if may_pass(&error) => {
                Ok((Self { path, gateway: gateway.to_owned(), file: None }, None))
            }
            opened => {
                let file = Some(opened?);
                Ok((Self { path, gateway: gateway.to_owned(), file }, None))
            }
        }
    }

    /// Adds entries, all or none; they are on the disk when it comes back.
    pub fn append(&mut self, events: &[Folded]) -> Result<(), AuditError> {
        let Self { path, gateway, file } = self;
        let OpenFile { conn, head } = match file {
            Some(file) => file,
            None => {
                let now_ms = events.iter().map(|one| one.event.at_ms).max().unwrap_or_default();
                file.insert(OpenFile::of(path, gateway, now_ms)?)
            }
        };
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
        let Some(OpenFile { conn, .. }) = &self.file else { return Ok(None) };
        conn.query_row(sql, words, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(|source| AuditError::Sqlite { path: self.path.clone(), source })
    }

    /// The newest entry that this has written, or found when it opened the file; `None`: the disk
    /// took nothing yet.
    pub fn head(&self) -> Option<Head> {
        self.file.as_ref().map(|file| file.head)
    }

    /// What is wrong with the log by what was signed of it last; `None`: nothing, or nothing was.
    pub fn contradicts(&self, signed: &Signed) -> Result<Option<String>, AuditError> {
        let Some(OpenFile { conn, head }) = &self.file else { return Ok(None) };
        let found = || -> rusqlite::Result<Option<String>> {
            let cut = match reader::last_checkpoint(conn) {
                Err(error) if failure::is_damage(&error) => None,
                cut => cut?,
            };
            let is_known =
                |cut: &Checkpoint| cut.signer().is_some_and(|key| signed.keys.contains(&key));
            let cut = cut.filter(is_known);
            let anchors = match &cut {
                None => &*signed.anchors,
                Some(cut) => match signed.since(cut) {
                    Some(anchors) => anchors,
                    None => return Ok(signed.without(cut)),
                },
            };
            let Some(newest) = anchors.last() else { return Ok(None) };
            let hash = match cut.filter(|cut| cut.seq == newest.head.seq) {
                Some(cut) => Some(cut.hash),
                None => reader::at(conn, newest.head.seq)?.map(|entry| entry.computed()),
            };
            Ok(newest.wrong(hash, head.seq))
        };
        found().map_err(|source| AuditError::Sqlite { path: self.path.clone(), source })
    }

    /// Cuts off entries that are before an instant, and leaves a checkpoint, which `sign` signs:
    /// those up to the newest of `anchors` that is of before that instant, so that nothing goes but
    /// what was there then. `None`: there are none. The newest entry always stays.
    pub fn cut(
        &mut self,
        anchors: &[Anchor],
        before_ms: i64,
        now_ms: i64,
        sign: impl FnOnce(&[u8]) -> Result<Signature, SealError>,
    ) -> Result<Option<Checkpoint>, AuditError> {
        let Self { path, gateway, file } = self;
        let Some(OpenFile { conn, head }) = file else { return Ok(None) };
        let sqlite = |source| AuditError::Sqlite { path: path.clone(), source };
        let found = last_signed_before(conn, head.seq, anchors, (before_ms, now_ms));
        let Some((seq, at_ms, hash)) = found.map_err(sqlite)? else { return Ok(None) };
        let mut checkpoint = Checkpoint {
            gateway: gateway.clone(),
            seq,
            at_ms,
            hash,
            cut_ms: now_ms,
            signature: None,
        };
        let signature = sign(&checkpoint.canonical())?;
        let (key, bytes) = (signature.key.to_bytes(), signature.bytes);
        checkpoint.signature = Some(signature);
        let mut cut = || -> rusqlite::Result<()> {
            let tx = conn.transaction()?;
            let seq = seq.cast_signed();
            let sql = "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?)";
            tx.execute(sql, params![seq, &*gateway, at_ms, hash.0, now_ms, key, bytes])?;
            tx.execute("DELETE FROM entry WHERE seq <= ?", [seq])?;
            tx.commit()
        };
        cut().map_err(sqlite)?;
        Ok(Some(checkpoint))
    }
}

/// The last of the entries whose time is over and that are as they were signed then: number, time
/// and hash. In the order of numbers: a clock that was wrong for a while cuts nothing out, and what
/// it was behind by makes no statement older than those before it.
fn last_signed_before(
    conn: &Connection,
    newest: u64,
    anchors: &[Anchor],
    (before_ms, now_ms): (i64, i64),
) -> rusqlite::Result<Option<(u64, i64, Hash)>> {
    let sql = "SELECT min(seq) FROM entry WHERE coalesce(until, time) >= ?";
    let kept: Option<i64> = conn.query_row(sql, [before_ms], |row| row.get(0))?;
    let kept = kept.map_or(newest, |kept| newest.min(kept.cast_unsigned()));
    let is_young = |anchor: &Anchor| (before_ms..=now_ms).contains(&anchor.at_ms);
    let old = anchors.iter().take_while(|anchor| !is_young(anchor));
    let over: Vec<&Anchor> =
        old.filter(|anchor| anchor.at_ms < before_ms && anchor.head.seq < kept).collect();
    for Anchor { head: Head { seq, hash }, .. } in over.into_iter().rev() {
        if let Some(entry) = reader::at(conn, *seq)?
            && entry.hash == *hash
            && entry.computed() == *hash
        {
            return Ok(Some((*seq, entry.at_ms, *hash)));
        }
    }
    Ok(None)
}

impl OpenFile {
    fn of(path: &Path, gateway: &str, now_ms: i64) -> Result<Self, AuditError> {
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
        Ok(Self { conn, head })
    }
}

/// Whether the disk may take it later.
fn may_pass(error: &AuditError) -> bool {
    match error {
        AuditError::Io { source, .. } => failure::may_pass_of_kernel(source),
        AuditError::Sqlite { source, .. } => failure::may_pass_of_sqlite(source),
        AuditError::Unknown(_)
        | AuditError::Directory(_)
        | AuditError::OtherGateway { .. }
        | AuditError::Sign(_) => false,
    }
}

#[cfg(test)]
impl AuditWriter {
    /// From now on the file takes nothing, as on a full disk.
    pub(crate) fn fill(&self) {
        let sql = "CREATE TEMP TRIGGER full BEFORE INSERT ON main.entry \
                   BEGIN SELECT raise(ABORT, 'database or disk is full'); END";
        self.conn().execute_batch(sql).unwrap();
    }

    /// It takes entries again.
    pub(crate) fn empty(&self) {
        self.conn().execute_batch("DROP TRIGGER temp.full").unwrap();
    }

    fn conn(&self) -> &Connection {
        &self.file.as_ref().unwrap().conn
    }
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
