//! What columns of chunks are read through, by one thread or by two.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ffi};

use super::{
    chunks::{Stored, damaged},
    leash::Leash,
    wanted::Wanted,
};
use crate::chunk::{ColumnSet, Number, Page, Picked};

/// What columns of chunks are read through.
pub(super) trait Source {
    /// Reads columns, unless they are there already.
    fn need(&self, stored: &Stored, of: ColumnSet) -> rusqlite::Result<()>;

    /// For how long it may be asked.
    fn leash(&self) -> &Leash;

    /// An error as of an interrupted query, when nobody waits for the answer.
    fn heed_leash(&self) -> rusqlite::Result<()> {
        match self.leash().over() {
            None => Ok(()),
            Some(_) => {
                let interrupted = ffi::Error::new(ffi::SQLITE_INTERRUPT);
                Err(rusqlite::Error::SqliteFailure(interrupted, None))
            }
        }
    }

    /// The pages of a chunk with what may be wanted, narrowed to it. A column is read only if what
    /// was read before it left anything.
    fn matching<'s>(&self, stored: &'s Stored, wanted: &Wanted) -> rusqlite::Result<Vec<Page<'s>>> {
        let Some(plan) = wanted.plan(self, stored)? else { return Ok(Vec::new()) };
        let mut pages: Vec<Page<'_>> = stored.chunk.pages().collect();
        for step in plan.steps() {
            if pages.is_empty() {
                break;
            }
            self.need(stored, step.columns())?;
            let mut left = Vec::with_capacity(pages.len());
            for page in pages {
                self.heed_leash()?;
                left.extend(step.narrow(page).map_err(damaged)?);
            }
            pages = left;
        }
        Ok(pages)
    }

    /// What these columns say of the records of a chunk that may be wanted, in its order.
    fn pick(&self, stored: &Stored, wanted: &Wanted, of: ColumnSet) -> rusqlite::Result<Picked> {
        let pages = self.matching(stored, wanted)?;
        if !pages.is_empty() {
            self.need(stored, of.and(Number::RecordId.columns()))?;
        }
        Picked::of(&stored.chunk, pages, of).map_err(damaged)
    }
}

/// A connection that two threads read through, one after the other, so that both see one instant.
pub(super) struct Shared<'s> {
    pub(super) conn: Mutex<&'s mut Connection>,
    pub(super) leash: &'s Leash,
}

impl Source for Shared<'_> {
    fn need(&self, stored: &Stored, of: ColumnSet) -> rusqlite::Result<()> {
        stored.need_through(of, |missing| stored.read(&lock(&self.conn), missing))
    }

    fn leash(&self) -> &Leash {
        self.leash
    }
}

/// What two threads share.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Neither leaves anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
