//! Chunks that are looked at record by record, by one thread or by two.
//!
//! - Two take their chunks from one list, and columns through one connection, one at a time, so that
//!   both see the same instant. What they decode and add up is their own, and becomes one in the end.
//! - One query of a reader at a time has a second thread, if there is a second CPU and the chunks are
//!   many. It ends with its query, whatever ends that.

use std::{
    mem,
    ops::ControlFlow,
    panic,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread, vec,
};

use rusqlite::{Connection, ffi};

use super::{
    chunks::{Stored, damaged},
    leash::Leash,
    row::Names,
    tallies::Tallies,
    wanted::Wanted,
};
use crate::chunk::{ColumnSet, Page};

/// Chunks for which a second thread is worth its while.
const MANY: usize = if cfg!(test) { 2 } else { 8 };
/// Sums that the second thread holds before it hands them over.
const HELD: usize = if cfg!(test) { 3 } else { 4_096 };

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
}

/// Whether a query may have a second thread: one at a time may.
#[derive(Clone, Debug)]
pub(super) struct Second {
    is_taken: Arc<AtomicBool>,
}

/// A second thread may run as long as this is held.
pub(super) struct Taken<'s>(&'s Second);

impl Second {
    /// Nobody has it, unless there is nothing for it to run on.
    pub(super) fn new() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let is_taken = cpus < 2 && !cfg!(test);
        Self { is_taken: Arc::new(AtomicBool::new(is_taken)) }
    }

    pub(super) fn take(&self) -> Option<Taken<'_>> {
        (!self.is_taken.swap(true, Ordering::Relaxed)).then_some(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Relaxed);
    }
}

/// What the two threads share.
pub(super) struct Scan<'s> {
    pub(super) conn: Mutex<&'s mut Connection>,
    pub(super) names: &'s Names,
    pub(super) leash: &'s Leash,
    pub(super) wanted: &'s Wanted,
    pub(super) chunks: Mutex<vec::IntoIter<Stored>>,
}

impl Source for Scan<'_> {
    fn need(&self, stored: &Stored, of: ColumnSet) -> rusqlite::Result<()> {
        let read: Vec<_> = {
            // All at once: they lie beside each other.
            let conn = lock(&self.conn);
            let read = |column| Ok((column, stored.read(&conn, column)?));
            stored.chunk.missing(of).iter().map(read).collect::<rusqlite::Result<_>>()?
        };
        read.into_iter()
            .try_for_each(|(column, body)| stored.chunk.load(column, body).map_err(damaged))
    }

    fn leash(&self) -> &Leash {
        self.leash
    }
}

impl Scan<'_> {
    /// Adds all chunks; `behind` each, it may stop.
    pub(super) fn run<'f>(
        &self,
        sums: &mut Tallies<'f>,
        second: &Second,
        mut behind: impl FnMut(&mut Tallies<'f>) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let are_many = lock(&self.chunks).len() >= MANY;
        let taken = if are_many { second.take() } else { None };
        thread::scope(|scope| {
            let (give, given) = mpsc::sync_channel(1);
            let part = sums.anew();
            let work = move || self.help(part, &give);
            // Without one it takes longer. Nobody gives anything then.
            let named = thread::Builder::new().name("scan".to_owned());
            let helper = taken.as_ref().and_then(move |_| named.spawn_scoped(scope, work).ok());
            let outcome = self.add_all(sums, &given, &mut behind);
            // The other one ends behind its chunk, also where it would hand something over.
            self.stop();
            drop(given);
            match helper.map(thread::ScopedJoinHandle::join) {
                None => outcome,
                Some(Ok(helped)) => outcome.and(helped),
                Some(Err(panicked)) => panic::resume_unwind(panicked),
            }
        })
    }

    fn add_all<'f>(
        &self,
        sums: &mut Tallies<'f>,
        given: &Receiver<Tallies<'f>>,
        behind: &mut impl FnMut(&mut Tallies<'f>) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        while let Some(stored) = self.next() {
            self.heed_leash()?;
            sums.add_chunk(self, self.names, &stored, self.wanted)?;
            given.try_iter().for_each(|part| sums.absorb(part));
            if behind(sums).is_break() {
                return Ok(());
            }
        }
        for part in given {
            sums.absorb(part);
            if behind(sums).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// What the second thread does.
    fn help<'f>(
        &self,
        mut sums: Tallies<'f>,
        give: &SyncSender<Tallies<'f>>,
    ) -> rusqlite::Result<()> {
        while let Some(stored) = self.next() {
            let added = self
                .heed_leash()
                .and_then(|()| sums.add_chunk(self, self.names, &stored, self.wanted));
            if added.is_err() {
                self.stop();
                return added;
            }
            if sums.groups() >= HELD {
                let anew = sums.anew();
                let full = mem::replace(&mut sums, anew);
                if give.send(full).is_err() {
                    return Ok(());
                }
            }
        }
        let _nobody_waits_any_more = give.send(sums);
        Ok(())
    }

    fn next(&self) -> Option<Stored> {
        lock(&self.chunks).next()
    }

    /// Nothing is left to do.
    fn stop(&self) {
        lock(&self.chunks).by_ref().for_each(drop);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Neither leaves anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
