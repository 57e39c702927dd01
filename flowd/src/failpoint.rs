//! Places where tests kill the daemon, as SIGKILL would, and the wall clock that they set: in builds
//! with the feature `failpoints` only.

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// How often the place that is asked for has been reached.
static REACHED: AtomicU32 = AtomicU32::new(0);

/// Kills the process when `FLOWD_TEST_KILL_AT` says so: `<name>`, or `<name>:<n>` for the n-th time
/// that the place is reached.
pub(crate) fn reached(name: &str) {
    let Ok(wanted) = env::var("FLOWD_TEST_KILL_AT") else { return };
    let (place, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if place == name && REACHED.fetch_add(1, Ordering::Relaxed) + 1 >= time.parse().unwrap_or(1) {
        std::process::abort();
    }
}

/// Panics when `FLOWD_TEST_PANIC_AT` says so, by the name of the place.
pub(crate) fn panics(name: &str) {
    assert!(env::var("FLOWD_TEST_PANIC_AT").as_deref() != Ok(name), "a test asked for it");
}

/// Stands still while the file `FLOWD_TEST_STALL` is there; another one beside it says that it does.
pub(crate) fn stalls() {
    let Some(path) = env::var_os("FLOWD_TEST_STALL").map(PathBuf::from) else { return };
    while path.exists() {
        fs::write(path.with_extension("reached"), "").expect("a test has made the directory");
        thread::sleep(Duration::from_millis(10));
    }
}

/// By how much the wall clock is off: what the file `FLOWD_TEST_CLOCK` says now, in milliseconds.
pub(crate) fn clock_offset_ms() -> i64 {
    let Some(path) = env::var_os("FLOWD_TEST_CLOCK") else { return 0 };
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
