//! The names of the latest segments as readers keep them. Nothing of them ever changes, others are
//! only added, so what one query has read, the next need not read again.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rusqlite::Connection;

use super::{chunks, row::Names};

/// Names that are kept at most, of all files together: some 8 MB.
const MOST: usize = if cfg!(test) { 8 } else { 16_384 };

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    /// Device and inode, which another file may get when this one has gone.
    number: (u64, u64),
    /// When it was made, where the file system says it.
    made: Option<SystemTime>,
}

impl FileId {
    /// What a path means now; `None`: nothing.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { number: (file.dev(), file.ino()), made: file.created().ok() })
    }
}

/// The kept names, those that were read last at the end.
#[derive(Debug, Default)]
pub(super) struct Known {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    file: FileId,
    last: Last,
    names: Arc<Names>,
}

/// The last number of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    interface: i64,
    peer: i64,
    word: i64,
}

impl Known {
    /// What records point to, as the transaction of `conn` sees it, and perhaps others that came
    /// later.
    pub(super) fn of(
        &self,
        conn: &Connection,
        version: usize,
        file: FileId,
    ) -> rusqlite::Result<Arc<Names>> {
        // Another file of this number and name would be taken for it.
        if file.made.is_none() {
            return Names::whole(conn, version).map(Arc::new);
        }
        let last = Last::of(conn, version)?;
        let find = |kept: &VecDeque<Kept>| {
            let known = kept.iter().find(|known| known.file == file && known.last.covers(last));
            known.map(|known| known.names.clone())
        };
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = find(&lock()) {
            return Ok(names);
        }
        let names = Arc::new(Names::whole(conn, version)?);
        let mut kept = lock();
        kept.retain(|known| known.file != file);
        kept.push_back(Kept { file, last, names: names.clone() });
        while kept.iter().map(|known| known.names.len()).sum::<usize>() > MOST {
            kept.pop_front();
        }
        Ok(names)
    }
}

impl Last {
    fn of(conn: &Connection, version: usize) -> rusqlite::Result<Self> {
        let words =
            if version < chunks::SINCE_VERSION { "0" } else { "(SELECT max(word_id) FROM word)" };
        let sql = format!(
            "SELECT coalesce((SELECT max(interface_id) FROM interface), 0), \
             coalesce((SELECT max(peer_id) FROM peer), 0), coalesce({words}, 0)"
        );
        conn.query_row(&sql, [], |row| {
            Ok(Self { interface: row.get(0)?, peer: row.get(1)?, word: row.get(2)? })
        })
    }

    /// Whether everything is known here that is known there.
    fn covers(self, other: Self) -> bool {
        self.interface >= other.interface && self.peer >= other.peer && self.word >= other.word
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
