//! The only writer.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction};

use super::{
    OpenError, WriteError, row,
    segment::{Carried, Interned, Segment, last_record_id_of},
    state::{self, Leaving, State},
};
use crate::flows::Record;

/// Owned by the drain thread; blocking.
#[derive(Debug)]
pub struct Writer {
    segments: PathBuf,
    gateway: String,
    newest: Segment,
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
        let (carried, before) = match previous {
            Some(day) => inherited(&segments, day, gateway)?,
            None => (Carried::default(), 0),
        };
        let newest = Segment::open(&segments, &newest, gateway, &carried)?;
        let last_record_id = before.max(newest.last_record_id()?);
        Ok(Self { segments, gateway: gateway.to_owned(), newest, last_record_id, _lock: lock })
    }

    /// Numbers and stores the records and brings the ledger up to date, in one transaction, and adds
    /// to what flows did that have left the tables. On an error nothing has changed, and the records
    /// keep the id 0.
    pub fn commit(
        &mut self,
        now_ms: i64,
        records: &mut [Record],
        leaving: &Leaving,
    ) -> Result<(), WriteError> {
        let first = self.last_record_id + 1;
        let outcome = self.transaction(now_ms, |tx, interned| {
            for (id, record) in (first..).zip(records.iter_mut()) {
                record.record_id = id;
                let ids = interned.ids(tx, record)?;
                row::insert_record(tx, record, ids)?;
                match record.end_reason {
                    None => row::upsert_open(tx, record, ids)?,
                    Some(_) => row::delete_open(tx, record, ids)?,
                }
            }
            state::write_ended(tx, records)?;
            state::write_leaving(tx, leaving)?;
            state::write_alive(tx, now_ms, false)
        });
        if outcome.is_err() {
            records.iter_mut().for_each(|record| record.record_id = 0);
        } else {
            self.last_record_id += records.len() as u64;
        }
        outcome
    }

    /// Runs `write` in one transaction of the day's segment, which is made where there is none. On
    /// an error nothing has changed.
    pub(super) fn transaction<T>(
        &mut self,
        now_ms: i64,
        write: impl FnOnce(&Transaction<'_>, &mut Interned) -> rusqlite::Result<T>,
    ) -> Result<T, WriteError> {
        let today = day(now_ms);
        // A clock that is set back does not reopen an older day.
        if today > self.newest.day {
            let carried = self.newest.carried()?;
            let next = Segment::open(&self.segments, &today, &self.gateway, &carried)?;
            std::mem::replace(&mut self.newest, next).close();
        }
        Ok(self.newest.transaction(write)?)
    }

    /// The newest segment, for reading.
    pub(super) fn conn(&self) -> &Connection {
        self.newest.conn()
    }

    /// Notes that everything until now is in the kernel's tables or in the store; if `is_clean`, in the
    /// store.
    pub fn beat(&mut self, now_ms: i64, is_clean: bool) -> Result<(), WriteError> {
        self.transaction(now_ms, |tx, _| state::write_alive(tx, now_ms, is_clean))
    }

    /// What the daemon before left to know.
    pub fn state(&self) -> Result<State, WriteError> {
        Ok(State::read(self.newest.conn())?)
    }

    /// Replaces it.
    pub fn set_state(&mut self, now_ms: i64, state: &State) -> Result<(), WriteError> {
        self.transaction(now_ms, |tx, _| state.write(tx))
    }

    /// The highest record id in the store; 0: none yet.
    pub fn last_record_id(&self) -> u64 {
        self.last_record_id
    }

    /// The ledger: shows open flows to `visit` until it says stop, each as a record of nothing since its
    /// last one.
    pub fn for_each_open(
        &self,
        visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), WriteError> {
        Ok(self.newest.for_each_open(visit)?)
    }

    #[cfg(test)]
    pub(super) fn leftovers(&self) -> Vec<Record> {
        self.newest.carried().unwrap().ledger
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
        self.newest.close();
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

/// What the segment before the newest left, and the highest record id up to it.
fn inherited(dir: &Path, day: &str, gateway: &str) -> Result<(Carried, u64), OpenError> {
    let segment = Segment::open(dir, day, gateway, &Carried::default())?;
    let mut last = segment.last_record_id()?;
    // A segment without records inherited its numbers too; those before it have them.
    let names = list(dir).map_err(io(dir))?;
    for before in names.iter().rev().filter(|name| name.as_str() < day) {
        if last > 0 {
            break;
        }
        last = last_record_id_of(&dir.join(format!("{before}.sqlite")))?;
    }
    Ok((segment.carried()?, last))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::Writer;
    use crate::flows::{Counters, EndReason, Entry, Initiator, Record, TcpFlags, Tuple, Verdict};
    use crate::store::Leaving;

    const DAY: i64 = 86_400_000;

    fn record(port: u16) -> Record {
        let counters = Counters { rx_packets: 1, rx_bytes: 60, tx_packets: 0, tx_bytes: 0 };
        Record {
            record_id: 0,
            interface: "wg0".into(),
            entry: Entry::default(),
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
        writer.commit(0, &mut batch, &Leaving::default()).unwrap();
        assert_eq!(batch.map(|record| record.record_id), [1, 2]);
        let mut bad = [record(3), record(4)];
        bad[1].window_end_ms = 0;
        writer.commit(DAY, &mut bad, &Leaving::default()).unwrap_err();
        assert_eq!(bad.map(|record| record.record_id), [0, 0]);
        writer.close();

        let mut writer = Writer::open(dir.path(), "gw", 2 * DAY).unwrap();
        assert_eq!(writer.last_record_id(), 2);
        assert_eq!(writer.size().0, 3);
        let mut left = writer.leftovers();
        assert_eq!(left.len(), 2);
        assert_eq!(left[0].counters, Counters::default());
        assert_eq!(left[0].total, record(1).total);
        assert_eq!(left[0].peer_resource.as_deref(), Some("branch"));
        assert_eq!(left[0].remote_resource.as_deref(), Some("billing-db"));
        left[0].end_reason = Some(EndReason::Shutdown);
        writer.commit(2 * DAY, &mut left[..1], &Leaving::default()).unwrap();
        assert_eq!(left[0].record_id, 3);
        assert_eq!(writer.leftovers().len(), 1);
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
