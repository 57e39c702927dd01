//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::machine;

/// Long enough for anything on this machine; generous, because emulated machines are slow.
pub const SOON: Duration = Duration::from_secs(120);

/// Between two looks, each of which may be a run of flowctl.
fn pause() {
    thread::sleep(Duration::from_millis(machine::size(10, 150)));
}

/// Returns as soon as `condition` holds; panics when it does not within `deadline`.
pub fn until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(deadline, what, || condition().then_some(()));
}

/// Returns what `look` finds as soon as it finds something; panics when it does not within
/// `deadline`.
pub fn until_some<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        pause();
    }
}

/// Waits until `look` returns `expected`; panics with both when it does not within [`SOON`].
pub fn until_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    let end = Instant::now() + SOON;
    loop {
        let found = look();
        if found == *expected {
            return;
        }
        assert!(Instant::now() < end, "{what}\n    found: {found:?}\n expected: {expected:?}");
        pause();
    }
}
