//! What is wanted of chunks, shown in their order, which two threads look for.
//!
//! - Each takes the next chunk of one list. What is found early waits for its turn, and whoever finds
//!   it, before much waits.
//! - The second one begins behind the first chunk, since who wants little often finds it there, and
//!   ends where a chunk has much: then most of the time is the sink's.

use std::{
    collections::BTreeMap,
    iter,
    ops::ControlFlow,
    panic,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread, vec,
};

use super::{
    chunks::Stored,
    second::Second,
    source::{Shared, Source as _, lock},
    wanted::Wanted,
};
use crate::chunk::{ColumnSet, Picked};

/// Records of a chunk behind which the second thread ends, and that wait at most before one is found
/// that comes before them.
const MUCH: usize = if cfg!(test) { 4 } else { 8_192 };

/// What is wanted of which columns.
pub(super) struct Relay<'s> {
    pub(super) source: Shared<'s>,
    pub(super) wanted: &'s Wanted,
    pub(super) of: ColumnSet,
}

/// What was found in the chunk of this number.
type Found = (usize, rusqlite::Result<Picked>);

/// The chunks that nobody has taken yet, numbered, and whether one had much.
struct List {
    chunks: Mutex<iter::Enumerate<vec::IntoIter<Stored>>>,
    has_much: AtomicBool,
}

impl List {
    fn next(&self) -> Option<(usize, Stored)> {
        lock(&self.chunks).next()
    }
}

impl Relay<'_> {
    /// Shows what is found in each of the chunks, in their order, until the sink breaks.
    pub(super) fn run(
        &self,
        chunks: Vec<Stored>,
        second: Option<&Second>,
        mut sink: impl FnMut(Picked) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let mut chunks = chunks.into_iter();
        let Some(first) = chunks.next() else { return Ok(()) };
        let found = self.pick(&first)?;
        drop(first);
        let are_worth_it = chunks.len() > 1 && found.len() <= MUCH;
        if sink(found)?.is_break() {
            return Ok(());
        }
        let taken = if are_worth_it { second.and_then(Second::take) } else { None };
        let list =
            List { chunks: Mutex::new(chunks.enumerate()), has_much: AtomicBool::new(false) };
        thread::scope(|scope| {
            let (give, given) = mpsc::sync_channel(1);
            let list = &list;
            let work = move || self.help(list, &give);
            // Without one it takes longer. Nobody gives anything then.
            let named = thread::Builder::new().name("relay".to_owned());
            let helper = taken.as_ref().and_then(move |_| named.spawn_scoped(scope, work).ok());
            let outcome = self.each(list, &given, &mut sink);
            // The other one ends behind its chunk, also where it would hand it over.
            lock(&list.chunks).by_ref().for_each(drop);
            drop(given);
            match helper.map(thread::ScopedJoinHandle::join) {
                Some(Err(panicked)) => panic::resume_unwind(panicked),
                _ => outcome,
            }
        })
    }

    fn each(
        &self,
        list: &List,
        given: &Receiver<Found>,
        sink: &mut impl FnMut(Picked) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let mut waiting: BTreeMap<usize, rusqlite::Result<Picked>> = BTreeMap::new();
        let mut next = 0;
        loop {
            waiting.extend(given.try_iter());
            if let Some(found) = waiting.remove(&next) {
                if sink(found?)?.is_break() {
                    return Ok(());
                }
                next += 1;
                continue;
            }
            let found = waiting.values().flatten().map(Picked::len).sum::<usize>();
            let own = if found <= MUCH { list.next() } else { None };
            let found = match own {
                Some((number, stored)) => (number, self.pick_of(list, &stored)),
                None => match given.recv() {
                    Ok(found) => found,
                    // It has given everything that it took, and nothing else is left.
                    Err(_) => return Ok(()),
                },
            };
            waiting.extend([found]);
        }
    }

    /// What the second thread does.
    fn help(&self, list: &List, give: &SyncSender<Found>) {
        while !list.has_much.load(Ordering::Relaxed) {
            let Some((number, stored)) = list.next() else { break };
            if give.send((number, self.pick_of(list, &stored))).is_err() {
                break;
            }
        }
    }

    fn pick_of(&self, list: &List, stored: &Stored) -> rusqlite::Result<Picked> {
        let found = self.pick(stored)?;
        if found.len() > MUCH {
            list.has_much.store(true, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn pick(&self, stored: &Stored) -> rusqlite::Result<Picked> {
        self.source.heed_leash()?;
        self.source.pick(stored, self.wanted, self.of)
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
