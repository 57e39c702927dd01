//! The keeper thread: seals the days that are over and removes the oldest, at start, when a day
//! begins, and every hour.

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
use crate::store::Keeper;

/// How often it looks whether a day has begun.
const LOOK: Duration = Duration::from_secs(5);
/// How often it works.
const WORK: Duration = Duration::from_hours(1);

/// The running thread; it ends with the guard.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts it.
pub(super) fn start(keeper: Keeper) -> io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread =
        thread::Builder::new().name("keeper".to_owned()).spawn(move || work(&keeper, &stopped))?;
    Ok(Running { stop, thread: Some(thread) })
}

fn work(keeper: &Keeper, stop: &AtomicBool) {
    let mut failing = false;
    while !stop.load(Ordering::Relaxed) {
        let (begun, newest) = (Instant::now(), keeper.newest());
        match keeper.run(now_ms()) {
            Ok(_) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "old segments stay as they are; flowd tries again");
                }
                failing = true;
            }
        }
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < WORK && keeper.newest() == newest {
            thread::park_timeout(LOOK);
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
