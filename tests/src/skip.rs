//! Tests that cannot run here say so, in a form the runner counts.

/// Prints `skipped: <test>: <why>` and returns from the test.
#[macro_export]
macro_rules! skip {
    ($why:expr) => {{
        $crate::skip::announce($why);
        return;
    }};
}

/// Prints the line of [`skip!`]; the name of a test is the name of its thread.
pub fn announce(why: &str) {
    use std::io::Write as _;

    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("?"));
    // Past the test harness, which captures only what the print macros write.
    let _ = std::io::stdout().write_all(line.as_bytes());
}
