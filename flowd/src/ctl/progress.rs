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

/// By what the way is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// From behind a record up to another one.
    Numbers(u64, u64),
    /// From the end of the first one's window up to this time, Unix milliseconds.
    Times(i64),
}

impl Way {
    /// How much of it is behind a record, and of how much, when the first one's window ended then.
    fn behind(self, first_ms: i64, id: u64, end_ms: i64) -> (u64, u64) {
        match self {
            Self::Numbers(first, last) => (id.saturating_sub(first), last.saturating_sub(first)),
            Self::Times(last_ms) => {
                let from_first = |ms: i64| u64::try_from(ms.saturating_sub(first_ms)).unwrap_or(0);
                (from_first(end_ms), from_first(last_ms))
            }
        }
    }
}

/// The line, or nothing where nobody sees it.
pub(super) struct Progress {
    way: Way,
    /// When the first one's window ended.
    first_ms: Option<i64>,
    done: u64,
    begun: Instant,
    /// When the line was last shown; `None`: nobody sees it.
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn begin(way: Way) -> Self {
        let begun = Instant::now();
        // A bar in the midst of records on the same terminal would be no help.
        let is_seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let shown = is_seen.then_some(begun);
        Self { way, first_ms: None, done: 0, begun, shown }
    }

    /// One more record, with this number, whose window ended then.
    pub(super) fn at(&mut self, id: u64, end_ms: i64) {
        self.done += 1;
        let first_ms = *self.first_ms.get_or_insert(end_ms);
        let Some(shown) = &mut self.shown else { return };
        // The clock is not looked at for every record.
        if !self.done.is_multiple_of(256) || shown.elapsed() < EVERY {
            return;
        }
        *shown = Instant::now();
        let (part, whole) = self.way.behind(first_ms, id, end_ms);
        let line = line(part, whole, self.done, self.begun.elapsed());
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

    use super::{Way, line};

    #[test]
    fn the_way_is_measured_by_numbers_or_by_times() {
        let cases = [
            (Way::Numbers(10, 110), (0, 60, 0), (50, 100)),
            (Way::Numbers(10, 110), (0, 120, 0), (110, 100)),
            (Way::Times(9_000), (5_000, 7, 6_000), (1_000, 4_000)),
            (Way::Times(9_000), (5_000, 7, 4_000), (0, 4_000)),
            (Way::Times(4_000), (5_000, 7, 6_000), (1_000, 0)),
        ];
        for (way, (first_ms, id, end_ms), expected) in cases {
            assert_eq!(way.behind(first_ms, id, end_ms), expected, "{way:?} {id} {end_ms}");
        }
    }

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
