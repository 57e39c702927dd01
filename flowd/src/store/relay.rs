//! What is wanted of chunks, one after the other, while a second thread is one chunk ahead.
//!
//! It begins behind the first chunk, since who wants little often finds it there, and waits where
//! chunks have much, since what both have found is held at a time.

use std::{
    ops::ControlFlow,
    panic,
    sync::mpsc::{self, Receiver, SyncSender},
    thread, vec,
};

use super::{
    chunks::Stored,
    second::Second,
    source::{Shared, Source as _},
    wanted::Wanted,
};
use crate::chunk::{ColumnSet, Picked};

/// Matches of a chunk behind which nothing is read ahead.
const MUCH: usize = if cfg!(test) { 4 } else { 8_192 };

/// What is wanted of which columns.
pub(super) struct Relay<'s> {
    pub(super) source: Shared<'s>,
    pub(super) wanted: &'s Wanted,
    pub(super) of: ColumnSet,
}

/// The second thread's ends: chunks go there, what is found comes back.
type Ends = (SyncSender<Stored>, Receiver<rusqlite::Result<Picked>>);

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
        let is_much = found.len() > MUCH;
        if sink(found)?.is_break() {
            return Ok(());
        }
        let taken = if chunks.len() > 1 { second.and_then(Second::take) } else { None };
        thread::scope(|scope| {
            let ((ask, asked), (give, given)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
            let work = move || self.help(&asked, &give);
            // Without one it takes longer.
            let named = thread::Builder::new().name("relay".to_owned());
            let helper = taken.as_ref().and_then(move |_| named.spawn_scoped(scope, work).ok());
            let ends = helper.is_some().then_some((ask, given));
            let outcome = self.rest(chunks, is_much, ends.as_ref(), &mut sink);
            // The other one ends when nobody asks or takes any more.
            drop(ends);
            match helper.map(thread::ScopedJoinHandle::join) {
                Some(Err(panicked)) => panic::resume_unwind(panicked),
                _ => outcome,
            }
        })
    }

    fn rest(
        &self,
        mut chunks: vec::IntoIter<Stored>,
        mut is_much: bool,
        ends: Option<&Ends>,
        sink: &mut impl FnMut(Picked) -> rusqlite::Result<ControlFlow<()>>,
    ) -> rusqlite::Result<()> {
        let ask = |chunks: &mut vec::IntoIter<Stored>, is_much: bool| {
            let (ask, given) = ends.filter(|_| !is_much)?;
            ask.send(chunks.next()?).ok().map(|()| given)
        };
        let mut own = chunks.next();
        let mut asked = ask(&mut chunks, is_much);
        while let Some(stored) = own.take() {
            let found = self.pick(&stored)?;
            drop(stored);
            is_much = found.len() > MUCH;
            if sink(found)?.is_break() {
                break;
            }
            // A thread that has died gives nothing: its panic is this one's in the end.
            let other = asked.and_then(|given| given.recv().ok()).transpose()?;
            is_much |= other.as_ref().is_some_and(|found| found.len() > MUCH);
            own = chunks.next();
            asked = ask(&mut chunks, is_much);
            if let Some(found) = other
                && sink(found)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// What the second thread does.
    fn help(&self, asked: &Receiver<Stored>, give: &SyncSender<rusqlite::Result<Picked>>) {
        for stored in asked {
            if give.send(self.pick(&stored)).is_err() {
                break;
            }
        }
    }

    fn pick(&self, stored: &Stored) -> rusqlite::Result<Picked> {
        self.source.heed_leash()?;
        self.source.pick(stored, self.wanted, self.of)
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
