//! What readers keep of the latest files, since it never changes there: what one query has read, the
//! next need not read again.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// Whether no other file can be taken for it.
    pub(super) fn is_sure(&self) -> bool {
        self.made.is_some()
    }
}

#[cfg(test)]
impl FileId {
    /// One that was made long ago.
    pub(super) fn sample(number: u64) -> Self {
        Self { number: (1, number), made: Some(SystemTime::UNIX_EPOCH) }
    }
}

/// What can be kept of a file; clones share it.
pub(super) trait Lasting: Clone {
    /// How much of it there may be, of all files together.
    const MOST: usize;

    /// How much it is.
    fn len(&self) -> usize;
}

/// Of each file the newest, the files in the order in which they were read.
#[derive(Debug)]
pub(super) struct Latest<T> {
    kept: Mutex<VecDeque<(FileId, T)>>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl<T: Lasting> Latest<T> {
    /// What is kept of a file, if it does, or what is read now.
    pub(super) fn of(
        &self,
        file: FileId,
        does: impl Fn(&T) -> bool,
        read: impl FnOnce() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !file.is_sure() {
            return read();
        }
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|(known, _)| *known == file).map(|(_, kept)| kept.clone());
        if let Some(kept) = known.filter(does) {
            return Ok(kept);
        }
        let new = read()?;
        let mut kept = lock();
        kept.retain(|(known, _)| *known != file);
        kept.push_back((file, new.clone()));
        // Of a file that has nothing, that is kept.
        while kept.iter().map(|(_, kept)| kept.len().max(1)).sum::<usize>() > T::MOST {
            kept.pop_front();
        }
        Ok(new)
    }
}

#[cfg(test)]
#[path = "latest_tests.rs"]
mod tests;
