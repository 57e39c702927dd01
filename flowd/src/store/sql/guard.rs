//! What a statement may do: read its tables, for so long, with so much memory and room on the disk.
//!
//! - what it may not name is refused while it is prepared
//! - what it takes is looked at while it runs, and its time before each function that may take long
//!   too; sorting goes through temporary files, of which
//!   SQLite keeps no more than a few megabytes in memory

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::{
    Connection,
    config::DbConfig,
    ffi,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
};

use super::{
    functions::{self, Looking},
    tables::{GAPS, PEERS, RECORDS},
};
use crate::store::{Leash, ReadError};

/// Bytes of a statement.
pub const MAX_BYTES: usize = 32 * 1024;
/// Bytes of one value, and of one row. SQLite looks at the memory between two rounds of a loop; a
/// round makes no more values than a statement has words.
pub(super) const VALUE_BYTES: i32 = 256 * 1024;
/// Bytes of a pattern, and of a format.
pub(super) const PATTERN_BYTES: i32 = 1_000;
/// Mebibytes that SQLite may take while a statement runs, beyond what it had.
pub(super) const MEMORY_MIB: i64 = 128;
/// Steps of SQLite's machine between two looks.
const STEPS: i32 = 100;
/// Looks between two at the disk.
const LOOKS: u32 = 100;
/// Functions of SQLite that make rows of JSON.
const OF_JSON: [&str; 2] = ["json_each", "json_tree"];
/// Where SQLite puts temporary files: the first of them that is there.
const TEMPORARY: [&str; 3] = ["/var/tmp", "/usr/tmp", "/tmp"];

/// What a statement may name, and which tables that it names have to be filled for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Access(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    gaps: AtomicBool,
    peers: AtomicBool,
    is_filling: AtomicBool,
}

/// Why a statement was interrupted.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopped(Arc<Mutex<Option<ReadError>>>);

impl Stopped {
    /// Tells it once.
    pub(super) fn take(&self) -> Option<ReadError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn set(&self, why: ReadError) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        true
    }
}

/// From now on only reading is possible, within limits.
pub(super) fn restrict(
    conn: &mut Connection,
    leash: &Leash,
    memory_mib: i64,
) -> rusqlite::Result<(Access, Stopped)> {
    // Two quotation marks are around names, never around texts: who mistypes a name is told.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    let limits = [
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_BYTES as i32),
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES),
        (Limit::SQLITE_LIMIT_COLUMN, 200),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ];
    for (limit, value) in limits {
        conn.set_limit(limit, value)?;
    }
    let (access, stopped) = (Access::default(), Stopped::default());
    functions::define(conn, &Looking { leash: leash.clone(), stopped: stopped.clone() })?;
    let judge = access.clone();
    conn.authorizer(Some(move |context: AuthContext<'_>| judge.judge(&context.action)))?;
    let mut watch = Watch::new(leash.clone(), stopped.clone(), memory_mib);
    conn.progress_handler(STEPS, Some(move || watch.is_over()))?;
    Ok((access, stopped))
}

impl Access {
    /// Whether the statement needs the gaps.
    pub(super) fn has_gaps(&self) -> bool {
        self.0.gaps.load(Ordering::Relaxed)
    }

    /// Whether the statement needs the peers.
    pub(super) fn has_peers(&self) -> bool {
        self.0.peers.load(Ordering::Relaxed)
    }

    /// Runs what writes the tables, which nothing else may.
    pub(super) fn filling<T>(&self, fill: impl FnOnce() -> T) -> T {
        self.0.is_filling.store(true, Ordering::Relaxed);
        let filled = fill();
        self.0.is_filling.store(false, Ordering::Relaxed);
        filled
    }

    fn judge(&self, action: &AuthAction<'_>) -> Authorization {
        match *action {
            AuthAction::Select | AuthAction::Recursive => Authorization::Allow,
            AuthAction::Function { function_name } if function_name != "load_extension" => {
                Authorization::Allow
            }
            AuthAction::Read { table_name, column_name } => self.reads(table_name, column_name),
            AuthAction::Insert { .. } if self.0.is_filling.load(Ordering::Relaxed) => {
                Authorization::Allow
            }
            _ => Authorization::Deny,
        }
    }

    fn reads(&self, table: &str, column: &str) -> Authorization {
        // Without a column it is as it was typed, and may be a part of the statement itself.
        let is = |known: &str| table.eq_ignore_ascii_case(known);
        if is(GAPS.name) {
            self.0.gaps.store(true, Ordering::Relaxed);
        } else if is(PEERS.name) {
            self.0.peers.store(true, Ordering::Relaxed);
        } else if !is(RECORDS.name) && !OF_JSON.contains(&table) && !column.is_empty() {
            return Authorization::Deny;
        }
        Authorization::Allow
    }
}

/// Looks at what a statement takes.
struct Watch {
    leash: Leash,
    stopped: Stopped,
    memory_mib: i64,
    /// What SQLite had when it began.
    begun_bytes: i64,
    temporary: PathBuf,
    /// Of the disk with temporary files, when it began.
    free_bytes: u64,
    looks: u32,
}

impl Watch {
    fn new(leash: Leash, stopped: Stopped, memory_mib: i64) -> Self {
        let temporary = temporary();
        let (begun_bytes, free_bytes) = (memory_bytes(), free_bytes(&temporary));
        Self { leash, stopped, memory_mib, begun_bytes, temporary, free_bytes, looks: 0 }
    }

    fn is_over(&mut self) -> bool {
        if let Some(over) = self.leash.over() {
            return self.stopped.set(over.into());
        }
        if memory_bytes() - self.begun_bytes > self.memory_mib * 1024 * 1024 {
            return self.stopped.set(ReadError::TooMuchMemory(self.memory_mib));
        }
        self.looks = self.looks.wrapping_add(1);
        // Half of what is free, so that many statements leave something too.
        if self.looks.is_multiple_of(LOOKS) && free_bytes(&self.temporary) < self.free_bytes / 2 {
            return self.stopped.set(ReadError::TooLittleRoom(self.temporary.clone()));
        }
        false
    }
}

/// What SQLite has of the heap, for every connection of the process.
fn memory_bytes() -> i64 {
    // SAFETY: it reads a counter, under a lock of its own.
    unsafe { ffi::sqlite3_memory_used() }
}

fn temporary() -> PathBuf {
    let told = ["SQLITE_TMPDIR", "TMPDIR"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    let mut places = told.chain(TEMPORARY.map(PathBuf::from));
    places.find(|path| path.is_dir()).unwrap_or_else(|| ".".into())
}

/// What is free on a disk for everybody; all the room there is where nobody can tell.
fn free_bytes(path: &Path) -> u64 {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return u64::MAX };
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is terminated, and the buffer is as large as the kernel writes.
    let done = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if done != 0 {
        return u64::MAX;
    }
    // SAFETY: the call filled it.
    let stat = unsafe { stat.assume_init() };
    stat.f_bavail * stat.f_frsize
}

#[cfg(test)]
mod tests {
    use super::{LOOKS, MEMORY_MIB, Stopped, Watch};
    use crate::store::{Leash, ReadError};

    #[test]
    fn a_statement_that_fills_the_disk_is_ended() {
        let stopped = Stopped::default();
        let mut watch = Watch::new(Leash::default(), stopped.clone(), MEMORY_MIB);
        // As if there had been all the room that one can write down.
        watch.free_bytes = u64::MAX;
        let looks = (0..=LOOKS).take_while(|_| !watch.is_over()).count();
        assert!(looks < LOOKS as usize, "{looks}");
        assert!(matches!(stopped.take(), Some(ReadError::TooLittleRoom(_))));
    }
}
