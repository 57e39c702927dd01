//! The compactor thread: makes chunks of the newest segment's rows, beside the drain thread, which
//! only puts them into their place.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    live::{Live, Request},
    store::{Compactor, StepError},
};

/// How often it looks whether there is enough for a chunk.
const LOOK: Duration = Duration::from_secs(1);
/// How long it waits when a chunk cannot be made or taken: another try costs as much as this one.
const RETRY: Duration = Duration::from_mins(1);

/// The running thread; it ends with the guard.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts it. The drain thread outlives it.
pub(super) fn start(compactor: Compactor, live: Live) -> io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::Builder::new()
        .name("compactor".to_owned())
        .spawn(move || work(&compactor, &live, &stopped))?;
    Ok(Running { stop, thread: Some(thread) })
}

fn work(compactor: &Compactor, live: &Live, stop: &AtomicBool) {
    let mut failing = false;
    while !stop.load(Ordering::Relaxed) {
        let pause = match step(compactor, live) {
            Ok(Done::Taken) => Duration::ZERO,
            Ok(Done::NothingToDo) => LOOK,
            Ok(Done::NotTaken) => RETRY,
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "records stay rows; flowd tries again");
                }
                failing = true;
                RETRY
            }
        };
        failing &= pause == RETRY;
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed)
            && let Some(left) = pause.checked_sub(begun.elapsed())
        {
            thread::park_timeout(left);
        }
    }
}

/// What became of a step.
enum Done {
    NothingToDo,
    Taken,
    /// The store has another segment by now, or no room.
    NotTaken,
}

fn step(compactor: &Compactor, live: &Live) -> Result<Done, StepError> {
    let Some(step) = compactor.next()? else { return Ok(Done::NothingToDo) };
    failpoint!("chunk-made");
    let (reply, taken) = oneshot::channel();
    live.tell(Request::Step { step: Box::new(step), reply });
    // A drain thread that has gone takes nothing.
    Ok(if taken.blocking_recv() == Ok(true) { Done::Taken } else { Done::NotTaken })
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the compactor thread has failed");
            }
        }
    }
}
