//! How much a thread computes. What it waits for is no part of that.

use std::time::Duration;

/// What the calling thread has computed since it began, in the kernel too.
pub(super) fn spent() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into a `timespec` that lives through the call; the clock exists since
    // before the oldest kernel that flowd runs on.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::spent;

    #[test]
    fn who_waits_spends_nothing_and_who_computes_does() {
        let (before, begun) = (spent(), Instant::now());
        while begun.elapsed() < Duration::from_millis(100) {
            thread::park_timeout(Duration::from_millis(100));
        }
        let waiting = spent() - before;
        assert!(waiting < begun.elapsed() / 2, "{waiting:?}");
        while spent() - before <= waiting {}
    }
}
