//! Records that come in while questions are asked, as a daemon takes them: durable commits, and the
//! steps that are due behind each, on a thread of their own.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use flowd::store::{Compactor, Leaving, Reader, Synchronous, TAIL_RECORDS, Writer};

use super::filled::{COMMIT, Filled, GATEWAY, records};

/// Records a second.
pub(super) const RATE: usize = 50_000;

/// They come until this is stopped.
pub(super) struct Coming {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Came, String>>,
}

/// How many came, in how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) records: usize,
    pub(super) time: Duration,
}

impl Coming {
    /// Those that follow the records of a store. The first of them are there.
    pub(super) fn begin(filled: &Filled) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, store, count) = (stop.clone(), filled.store(), filled.count);
        let now_ms = filled.facts.last_ms;
        let (comes, has_come) = mpsc::channel();
        let work = move || {
            let come = || -> Result<Came, Box<dyn Error>> {
                let mut all = records(usize::MAX).skip(count);
                let mut batch: Vec<_> = all.by_ref().take(COMMIT).collect();
                let writer = Writer::open(&store, GATEWAY, now_ms)?;
                let mut writer = writer.with_synchronous(Synchronous::Full)?;
                let compactor = Compactor::new(Reader::new(&store, GATEWAY), TAIL_RECORDS);
                let (begun, mut done) = (Instant::now(), 0);
                while !stopped.load(Ordering::Relaxed) {
                    let due = begun + Duration::from_secs(1) * (done as u32) / RATE as u32;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let now_ms = batch.iter().map(|one| one.window_end_ms).max().unwrap_or(now_ms);
                    writer.commit(now_ms, &mut batch, &Leaving::default())?;
                    while let Some(step) = compactor.next()? {
                        if !writer.take_step(now_ms, &step)? {
                            return Err("a step is not of the segment".into());
                        }
                    }
                    done += batch.len();
                    // Waited for once.
                    let _told = comes.send(());
                    batch = all.by_ref().take(COMMIT).collect();
                }
                let time = begun.elapsed();
                writer.close();
                Ok(Came { records: done, time })
            };
            come().map_err(|error| error.to_string())
        };
        let thread = thread::spawn(work);
        // It fails with the thread, which says so when it is stopped.
        let _failed = has_come.recv();
        Self { stop, thread }
    }

    /// No more come.
    pub(super) fn stop(self) -> Result<Came, Box<dyn Error>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the thread of records has failed")??)
    }
}
