//! How far a long command is: one line on standard error, where that is a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::text;

/// Between two looks of the line.
const EVERY: Duration = Duration::from_millis(200);
/// Cells of the bar.
const WIDTH: u64 = 24;

/// The line, or nothing where nobody sees it.
pub(super) struct Progress {
    first: u64,
    last: u64,
    done: u64,
    begun: Instant,
    /// When the line was last shown; `None`: nobody sees it.
    shown: Option<Instant>,
}

impl Progress {
    /// From behind record `first` up to record `last`.
    pub(super) fn begin(first: u64, last: u64) -> Self {
        let begun = Instant::now();
        // A bar in the midst of records on the same terminal would be no help.
        let is_seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let shown = is_seen.then_some(begun);
        Self { first, last, done: 0, begun, shown }
    }

    /// One more record, with this number.
    pub(super) fn at(&mut self, id: u64) {
        self.done += 1;
        let Some(shown) = &mut self.shown else { return };
        // The clock is not looked at for every record.
        if !self.done.is_multiple_of(256) || shown.elapsed() < EVERY {
            return;
        }
        *shown = Instant::now();
        let line = line(id - self.first, self.last - self.first, self.done, self.begun.elapsed());
        // A line that cannot be shown is no reason to stop.
        let _unseen = write!(io::stderr(), "\r{line}\x1b[K");
    }

    /// The line goes.
    pub(super) fn end(self) {
        if self.shown.is_some() {
            let _unseen = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// How much of `whole` is behind us, what was written, how fast, how long it may take.
fn line(part: u64, whole: u64, records: u64, elapsed: Duration) -> String {
    // Records come in while it runs.
    let part = part.min(whole);
    let permille = (part * 1_000).checked_div(whole).unwrap_or(1_000);
    let full = (permille * WIDTH / 1_000) as usize;
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH as usize - full));
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = (records as f64 / seconds) as u64;
    let left = if part == 0 { 0.0 } else { seconds / part as f64 * (whole - part) as f64 };
    format!(
        "{:>3}% {bar} {} records, {}/s, {} left",
        permille / 10,
        text::count(records),
        text::count(rate),
        text::duration((left * 1_000.0) as i64),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::line;

    #[test]
    fn the_line_says_how_far_how_fast_and_how_long() {
        let cases = [
            ((0, 100, 0, 1), "  0% ░░░░░░░░░░░░░░░░░░░░░░░░ 0 records, 0/s, 0ms left"),
            (
                (2_500_000, 10_000_000, 2_500_000, 5),
                " 25% ██████░░░░░░░░░░░░░░░░░░ 2.5M records, 500k/s, 15s left",
            ),
            ((100, 100, 40, 2), "100% ████████████████████████ 40 records, 20/s, 0ms left"),
            ((120, 100, 120, 2), "100% ████████████████████████ 120 records, 60/s, 0ms left"),
            ((0, 0, 0, 0), "100% ████████████████████████ 0 records, 0/s, 0ms left"),
        ];
        for ((part, whole, records, seconds), expected) in cases {
            assert_eq!(line(part, whole, records, Duration::from_secs(seconds)), expected);
        }
    }
}
