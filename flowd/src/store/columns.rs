//! Columns of chunks as readers keep them for a while: what one query has loaded of a chunk, others
//! that look there soon need neither read nor unpack. A column of a chunk never changes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;

use super::{chunks::Stored, latest::FileId};
use crate::chunk::{ColumnId, ColumnSet, Loaded};

/// Bytes of memory that all take together at most.
const MOST_BYTES: usize = 24 * 1024 * 1024;
/// What nobody has asked for so long goes when somebody looks.
const IDLE: Duration = Duration::from_secs(60);

/// The columns of all files.
#[derive(Debug)]
pub(super) struct Columns {
    most_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// When each was asked for last.
    columns: HashMap<Place, (Instant, Loaded), RandomState>,
    bytes: usize,
}

/// The first and the last record of a chunk, since others begin where it did when it has become one
/// with them, and the column.
type Place = (FileId, (u64, u64), ColumnId);

impl Default for Columns {
    fn default() -> Self {
        Self { most_bytes: MOST_BYTES, held: Mutex::default() }
    }
}

impl Columns {
    /// That of one query.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance(Arc::new(AtomicUsize::new(self.most_bytes / 4 * 3)))
    }

    /// Lets go of what nobody has asked for in a while.
    pub(super) fn forget_idle(&self) {
        self.forget_idle_at(Instant::now());
    }

    fn forget_idle_at(&self, now: Instant) {
        // The lock is free again when their memory is freed.
        let _gone = self.held().retain(|asked| now.saturating_duration_since(asked) < IDLE);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn put(&mut self, place: Place, now: Instant, loaded: Loaded) {
        loaded.stay();
        self.bytes += loaded.most_bytes();
        if let Some((_, before)) = self.columns.insert(place, (now, loaded)) {
            self.bytes -= before.most_bytes();
        }
    }

    /// Keeps what was asked for when `is_wanted` says; gives the others.
    #[must_use]
    fn retain(&mut self, is_wanted: impl Fn(Instant) -> bool) -> Vec<Loaded> {
        let gone = self.columns.extract_if(|_, (asked, _)| !is_wanted(*asked));
        let gone: Vec<Loaded> = gone.map(|(_, (_, loaded))| loaded).collect();
        self.bytes -= gone.iter().map(Loaded::most_bytes).sum::<usize>();
        gone
    }

    /// Gives what was not asked for the longest, down to three fourths of `most_bytes`.
    #[must_use]
    fn shrink(&mut self, most_bytes: usize) -> Vec<Loaded> {
        if self.bytes <= most_bytes {
            return Vec::new();
        }
        let mut asked: Vec<(Instant, usize)> =
            self.columns.values().map(|(asked, loaded)| (*asked, loaded.most_bytes())).collect();
        asked.sort_unstable();
        let mut left = self.bytes;
        let last = asked.into_iter().find(|(_, bytes)| {
            left -= bytes;
            left <= most_bytes / 4 * 3
        });
        self.retain(|asked| last.is_some_and(|(last, _)| asked > last))
    }
}

/// Bytes that a query may still have kept for others, or keep longer: who reads everything, even again
/// and again, does not drive out all that others ask for.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// Whether there is room for it, which it takes.
    fn take(&self, loaded: &Loaded) -> bool {
        let take = |left: usize| left.checked_sub(loaded.most_bytes());
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// The columns of one file, for one query.
#[derive(Clone, Debug)]
pub(super) struct OfFile {
    columns: Arc<Columns>,
    file: FileId,
    allowance: Allowance,
}

impl OfFile {
    /// `None` where another file could be taken for it.
    pub(super) fn new(columns: Arc<Columns>, file: FileId, allowance: Allowance) -> Option<Self> {
        file.is_sure().then_some(Self { columns, file, allowance })
    }

    /// Gives a chunk those of these columns that are kept.
    pub(super) fn lend(&self, stored: &Stored, of: ColumnSet) {
        if of == ColumnSet::default() {
            return;
        }
        let now = Instant::now();
        let mut held = self.columns.held();
        for column in of.iter() {
            if let Some((asked, loaded)) = held.columns.get_mut(&self.place(stored, column)) {
                if self.allowance.take(loaded) {
                    *asked = now;
                }
                stored.chunk.share(column, loaded.clone());
            }
        }
    }

    /// Keeps those of these columns that the chunk has loaded, as far as there is room for them.
    pub(super) fn keep(&self, stored: &Stored, of: ColumnSet) {
        let now = Instant::now();
        let mut held = self.columns.held();
        for column in of.iter() {
            let Some(loaded) = stored.chunk.loaded(column) else { continue };
            if self.allowance.take(loaded) {
                held.put(self.place(stored, column), now, loaded.clone());
            }
        }
        let gone = held.shrink(self.columns.most_bytes);
        // The lock is free again when their memory is freed.
        drop(held);
        drop(gone);
    }

    fn place(&self, stored: &Stored, column: ColumnId) -> Place {
        (self.file, (stored.first, stored.last), column)
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
