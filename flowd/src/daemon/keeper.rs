//! The keeper thread: seals the days that are over and removes the oldest, at start, when a day
//! begins, and every hour; sooner when a day was left open. What it cannot do, `status` says.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::collector::now_ms;
use crate::{
    live::{Live, Request},
    store::{Keeper, Kept},
};

/// How often it looks whether a day has begun.
const LOOK: Duration = Duration::from_secs(5);
/// How often it works.
const WORK: Duration = Duration::from_hours(1);
/// When it tries again to close a day that somebody reads, or after a failure; the next times twice
/// as late each.
const AGAIN: Duration = Duration::from_secs(1);

/// The running thread; it ends with the guard.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts it. The drain thread outlives it.
pub(super) fn start(keeper: Keeper, live: Live) -> io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || work(&keeper, &live, &stopped))?;
    Ok(Running { stop, thread: Some(thread) })
}

fn work(keeper: &Keeper, live: &Live, stop: &AtomicBool) {
    let (mut failing, mut again, mut held_since) = (None, AGAIN, None);
    while !stop.load(Ordering::Relaxed) {
        let (begun, newest) = (Instant::now(), keeper.newest());
        let (is_done, error) = match keeper.run(now_ms()) {
            Ok(Kept { held: 0, .. }) => {
                held_since = None;
                (true, None)
            }
            Ok(Kept { held, .. }) => {
                let since: Instant = *held_since.get_or_insert(begun);
                let error = || {
                    format!(
                        "{held} days that are over stay open, because somebody has read them for \
                         more than an hour: find him with `fuser -v` on the oldest file that is \
                         not read-only"
                    )
                };
                (false, (since.elapsed() >= WORK).then(error))
            }
            Err(error) => (false, Some(error.to_string())),
        };
        if error != failing {
            if let Some(error) = &error {
                tracing::error!(error, "old segments stay as they are; flowd tries again");
            }
            // The drain thread has ended only when this one is about to.
            let _ended = live.tell(Request::Kept(error.clone()));
            failing = error;
        }
        let pause = if is_done { WORK } else { again };
        again = if is_done { AGAIN } else { WORK.min(again * 2) };
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < pause && keeper.newest() == newest
        {
            thread::park_timeout(LOOK.min(pause));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the keeper thread has failed");
            }
        }
    }
}
