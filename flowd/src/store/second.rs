//! The second thread of a query: one query for sums and one for records have one at a time, if there is
//! a second CPU. It ends with its query, whatever ends that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

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
