//! The only writer.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    OpenError, WriteError,
    row::{self, Ids, Names},
    schema,
};
use crate::flows::{Identity, Record};

/// Owned by the drain thread; blocking.
#[derive(Debug)]
pub struct Writer {
    segments: PathBuf,
    gateway: String,
    day: String,
    conn: Connection,
    interfaces: HashMap<Arc<str>, i64>,
    peers: HashMap<Arc<Identity>, i64>,
    last_record_id: u64,
    _lock: File,
}

impl Writer {
    /// Opens the store in `dir`, makes it where there is none, and keeps other writers out.
    pub fn open(dir: &Path, gateway: &str, now_ms: i64) -> Result<Self, OpenError> {
        let segments = dir.join("segments");
        DirBuilder::new().recursive(true).mode(0o750).create(&segments).map_err(io(&segments))?;
        for path in [dir, &segments] {
            fs::set_permissions(path, Permissions::from_mode(0o750)).map_err(io(path))?;
        }
        let lock = lock(dir)?;
        let names = list(&segments).map_err(io(&segments))?;
        let today = day(now_ms);
        let newest = names.last().filter(|newest| **newest > today).unwrap_or(&today).clone();
        let previous = names.iter().rev().find(|name| **name < newest);
        let (ledger, before) = match previous {
            Some(day) => inherited(&segments, day, gateway)?,
            None => (Vec::new(), 0),
        };
        let conn = open_segment(&segments, &newest, gateway, &ledger)?;
        let last: i64 =
            conn.query_row("SELECT coalesce(max(record_id), 0) FROM record", [], |row| row.get(0))?;
        let mut writer = Self {
            segments,
            gateway: gateway.to_owned(),
            day: newest,
            conn,
            interfaces: HashMap::new(),
            peers: HashMap::new(),
            last_record_id: before.max(last.cast_unsigned()),
            _lock: lock,
        };
        writer.read_names()?;
        Ok(writer)
    }

    /// Numbers and stores the records and brings the ledger up to date, in one transaction. On an
    /// error nothing has changed, and the records keep the id 0.
    pub fn commit(&mut self, now_ms: i64, records: &mut [Record]) -> Result<(), WriteError> {
        let today = day(now_ms);
        // A clock that is set back does not reopen an older day.
        if today > self.day {
            let ledger = self.leftovers()?;
            self.conn = open_segment(&self.segments, &today, &self.gateway, &ledger)?;
            self.day = today;
            self.read_names()?;
        }
        let outcome = self.insert(records);
        if outcome.is_err() {
            for record in records.iter_mut() {
                record.record_id = 0;
            }
            self.read_names()?;
        }
        Ok(outcome?)
    }

    fn insert(&mut self, records: &mut [Record]) -> rusqlite::Result<()> {
        let Self { conn, interfaces, peers, last_record_id, .. } = self;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut id = *last_record_id;
        for record in records.iter_mut() {
            id += 1;
            record.record_id = id;
            let ids = ids(&tx, record, interfaces, peers)?;
            row::insert_record(&tx, record, ids)?;
            if record.overflow {
                continue;
            }
            match record.end_reason {
                None => row::upsert_open(&tx, record, ids)?,
                Some(_) => row::delete_open(&tx, record, ids)?,
            }
        }
        tx.commit()?;
        *last_record_id = id;
        Ok(())
    }

    /// The highest record id in the store; 0: none yet.
    pub fn last_record_id(&self) -> u64 {
        self.last_record_id
    }

    /// The ledger: every open flow as a record of nothing since its last one.
    pub fn leftovers(&self) -> Result<Vec<Record>, WriteError> {
        Ok(ledger(&self.conn)?)
    }

    /// Segments and their bytes on disk, write-ahead logs included.
    pub fn size(&self) -> (u64, u64) {
        let segments = list(&self.segments).map_or(0, |names| names.len() as u64);
        let bytes = fs::read_dir(&self.segments).map_or(0, |entries| {
            entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum()
        });
        (segments, bytes)
    }

    /// Folds the write-ahead log into the segment.
    pub fn close(self) {
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "the newest segment was not closed; its log is read next time");
        }
    }

    fn read_names(&mut self) -> rusqlite::Result<()> {
        let Names { interfaces, peers } = Names::read(&self.conn)?;
        self.interfaces = interfaces.into_iter().map(|(id, name)| (name, id)).collect();
        self.peers = peers.into_iter().map(|(id, identity)| (identity, id)).collect();
        Ok(())
    }
}

/// The UTC day, as segments are named.
fn day(now_ms: i64) -> String {
    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.strftime("%Y-%m-%d").to_string()
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(&path)
        .map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(&path)(error)),
    }
}

/// The days that have a segment, oldest first.
pub(super) fn list(segments: &Path) -> std::io::Result<Vec<String>> {
    let mut days = Vec::new();
    for entry in fs::read_dir(segments)? {
        let name = entry?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(".sqlite"));
        days.extend(day.filter(|day| day.parse::<jiff::civil::Date>().is_ok()).map(str::to_owned));
    }
    days.sort();
    Ok(days)
}

/// The ledger and the highest record id of the segment before the newest.
fn inherited(dir: &Path, day: &str, gateway: &str) -> Result<(Vec<Record>, u64), OpenError> {
    let conn = open_segment(dir, day, gateway, &[])?;
    let last: i64 =
        conn.query_row("SELECT coalesce(max(record_id), 0) FROM record", [], |row| row.get(0))?;
    // A segment without records inherited its numbers too; those before it have them.
    let names = list(dir).map_err(io(dir))?;
    let before = names.iter().rev().find(|name| name.as_str() < day);
    let last = match before {
        Some(before) if last == 0 => inherited(dir, before, gateway)?.1,
        _ => last.cast_unsigned(),
    };
    Ok((ledger(&conn)?, last))
}

fn ledger(conn: &Connection) -> rusqlite::Result<Vec<Record>> {
    let names = Names::read(conn)?;
    let mut query = conn.prepare(&format!("SELECT {} FROM open_flow", row::LEDGER))?;
    query.query_map([], |row| row::record(row, &names))?.collect()
}

/// Opens the segment of a day; a new one starts with the whole ledger.
fn open_segment(
    dir: &Path,
    day: &str,
    gateway: &str,
    ledger: &[Record],
) -> Result<Connection, OpenError> {
    let path = dir.join(format!("{day}.sqlite"));
    prepare(&path, day, gateway, ledger)
        .map_err(|source| OpenError::Segment { path, source: Box::new(source) })
}

fn prepare(
    path: &Path,
    day: &str,
    gateway: &str,
    ledger: &[Record],
) -> Result<Connection, OpenError> {
    // Made here, so that its mode, which SQLite gives to the log too, depends on no umask.
    let mut file = OpenOptions::new();
    file.create(true).truncate(false).write(true).mode(0o640);
    let file = file.open(path).map_err(io(path))?;
    drop(file);
    let mut conn = Connection::open(path)?;
    let found = schema::check(&conn)?;
    fs::set_permissions(path, Permissions::from_mode(0o640)).map_err(io(path))?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&tx, found)?;
    let owner: Option<String> =
        tx.query_row("SELECT gateway FROM meta", [], |row| row.get(0)).optional()?;
    match owner {
        Some(found) if found != gateway => return Err(OpenError::OtherGateway { found }),
        Some(_) => {}
        None => {
            tx.execute("INSERT INTO meta VALUES (1, ?, ?)", params![gateway, day])?;
            let (mut interfaces, mut peers) = (HashMap::new(), HashMap::new());
            for record in ledger {
                let ids = ids(&tx, record, &mut interfaces, &mut peers)?;
                row::upsert_open(&tx, record, ids)?;
            }
        }
    }
    tx.commit()?;
    Ok(conn)
}

/// What the record points to; made where the segment does not have it.
fn ids(
    conn: &Connection,
    record: &Record,
    interfaces: &mut HashMap<Arc<str>, i64>,
    peers: &mut HashMap<Arc<Identity>, i64>,
) -> rusqlite::Result<Ids> {
    let interface = match interfaces.get(&record.interface) {
        Some(id) => *id,
        None => {
            conn.prepare_cached("INSERT INTO interface (name) VALUES (?)")?
                .execute([&*record.interface])?;
            let id = conn.last_insert_rowid();
            interfaces.insert(record.interface.clone(), id);
            id
        }
    };
    let mut peer = |identity: &Option<Arc<Identity>>| -> rusqlite::Result<Option<i64>> {
        let Some(identity) = identity else {
            return Ok(None);
        };
        if let Some(id) = peers.get(identity) {
            return Ok(Some(*id));
        }
        let Identity { public_key, name, user, device, groups, endpoint } = &**identity;
        conn.prepare_cached(
            "INSERT INTO peer (public_key, name, user, device, groups, endpoint) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            public_key,
            name,
            user,
            device,
            serde_json::Value::from(groups.clone()).to_string(),
            endpoint.map(|endpoint| endpoint.to_string()),
        ])?;
        let id = conn.last_insert_rowid();
        peers.insert(identity.clone(), id);
        Ok(Some(id))
    };
    Ok(Ids { interface, peer: peer(&record.peer)?, remote_peer: peer(&record.remote_peer)? })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::Writer;
    use crate::flows::{Counters, EndReason, Initiator, Record, TcpFlags, Tuple, Verdict};

    const DAY: i64 = 86_400_000;

    fn record(port: u16) -> Record {
        let counters = Counters { rx_packets: 1, rx_bytes: 60, tx_packets: 0, tx_bytes: 0 };
        Record {
            record_id: 0,
            interface: "wg0".into(),
            tuple: Tuple { protocol: 17, peer_port: port, ..Tuple::NONE },
            window_start_ms: 1,
            window_end_ms: 5,
            first_seen_ms: 1,
            last_seen_ms: 4,
            initiator: Initiator::Peer,
            icmp: None,
            peer: None,
            remote_peer: None,
            peer_resource: None,
            remote_resource: None,
            verdict: Verdict::Allow,
            enforced: false,
            rule: None,
            policy_revision: 0,
            counters,
            total: counters,
            tcp_flags: TcpFlags::default(),
            end_reason: None,
            overflow: false,
        }
    }

    #[test]
    fn ids_have_no_gap_and_the_ledger_follows_over_days_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let refused = Writer::open(dir.path(), "gw", 0).unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
        let mut batch = [record(1), record(2)];
        batch[0].peer_resource = Some("branch".into());
        batch[0].remote_resource = Some("billing-db".into());
        writer.commit(0, &mut batch).unwrap();
        assert_eq!(batch.map(|record| record.record_id), [1, 2]);
        let mut bad = [record(3), record(4)];
        bad[1].window_end_ms = 0;
        writer.commit(DAY, &mut bad).unwrap_err();
        assert_eq!(bad.map(|record| record.record_id), [0, 0]);
        writer.close();

        let mut writer = Writer::open(dir.path(), "gw", 2 * DAY).unwrap();
        assert_eq!(writer.last_record_id(), 2);
        assert_eq!(writer.size().0, 3);
        let mut left = writer.leftovers().unwrap();
        assert_eq!(left.len(), 2);
        assert_eq!(left[0].counters, Counters::default());
        assert_eq!(left[0].total, record(1).total);
        assert_eq!(left[0].peer_resource.as_deref(), Some("branch"));
        assert_eq!(left[0].remote_resource.as_deref(), Some("billing-db"));
        left[0].end_reason = Some(EndReason::Shutdown);
        writer.commit(2 * DAY, &mut left[..1]).unwrap();
        assert_eq!(left[0].record_id, 3);
        assert_eq!(writer.leftovers().unwrap().len(), 1);
        let path = dir.path().join("segments/1970-01-03.sqlite");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn foreign_and_newer_files_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Writer::open(dir.path(), "gw", 0).unwrap().close();
        let path = dir.path().join("segments/1970-01-01.sqlite");
        rusqlite::Connection::open(&path)
            .and_then(|conn| conn.pragma_update(None, "user_version", 99))
            .unwrap();
        let newer = fs::read(&path).unwrap();
        for (content, said) in [(newer, "update flowd"), (b"no database".repeat(99), "restore")] {
            fs::write(&path, &content).unwrap();
            let error = Writer::open(dir.path(), "gw", 0).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
