//! Chunks that are looked at record by record, by one thread or by two.
//!
//! Two take their chunks from one list, and columns through one connection, one at a time, so that
//! both see the same instant. What they decode and add up is their own, and becomes one in the end.

use std::{
    mem,
    ops::ControlFlow,
    panic,
    sync::{
        Mutex,
        mpsc::{self, Receiver, SyncSender},
    },
    thread, vec,
};

use super::{
    chunks::Stored,
    row::Names,
    second::Second,
    source::{Shared, Source as _, lock},
    tallies::Tallies,
    wanted::Wanted,
};

/// Chunks for which a second thread is worth its while.
const MANY: usize = if cfg!(test) { 2 } else { 8 };
/// Sums that the second thread holds before it hands them over.
const HELD: usize = if cfg!(test) { 3 } else { 4_096 };

/// What the two threads share.
pub(super) struct Scan<'s> {
    pub(super) source: Shared<'s>,
    pub(super) names: &'s Names,
    pub(super) wanted: &'s Wanted,
    pub(super) chunks: Mutex<vec::IntoIter<Stored>>,
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
            self.source.heed_leash()?;
            sums.add_chunk(&self.source, self.names, &stored, self.wanted)?;
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
                .source
                .heed_leash()
                .and_then(|()| sums.add_chunk(&self.source, self.names, &stored, self.wanted));
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

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
