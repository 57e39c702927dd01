//! What a run of libtest says, line by line, as numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Tally {
    /// Something broke that is no test: it counts as one failed test, or else would look green.
    pub(super) fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// Whether nothing ran.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Reads the output of any number of test executables.
#[derive(Debug, Default)]
pub(super) struct Report {
    results: Tally,
    /// Tests that passed by saying why they could not run; a test may say it more than once.
    skipped: BTreeSet<String>,
}

impl Report {
    /// Takes one line of the output.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.results += counted(counts);
        } else if let Some(skip) = skip(line) {
            self.skipped.insert(skip.to_owned());
        }
    }

    /// The numbers so far.
    pub(super) fn tally(&self) -> Tally {
        let Tally { passed, failed, skipped } = self.results;
        let said = self.skipped.len();
        Tally { passed: passed.saturating_sub(said), failed, skipped: skipped + said }
    }
}

/// Reads `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn counted(line: &str) -> Tally {
    let mut tally = Tally::default();
    let counts = line.split_once(". ").map_or("", |(_verdict, counts)| counts);
    for part in counts.split("; ") {
        match part.split_once(' ') {
            Some((number, "passed")) => tally.passed += number.parse().unwrap_or(0),
            Some((number, "failed")) => tally.failed += number.parse().unwrap_or(0),
            Some((number, "ignored")) => tally.skipped += number.parse().unwrap_or(0),
            _ => {}
        }
    }
    tally
}

/// The test's name in `skipped: <test>: <why>`.
///
/// With one thread libtest writes `test <test> ... ` in front of what a test prints unbuffered.
fn skip(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ") {
        Some(rest) => rest.split_once(" ... ").map_or(line, |(_test, printed)| printed),
        None => line,
    };
    let (test, why) = line.strip_prefix("skipped: ")?.split_once(": ")?;
    (!why.is_empty()).then_some(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut report = Report::default();
        output.lines().for_each(|line| report.line(line));
        report.tally()
    }

    #[test]
    fn output_is_counted() {
        let cases = [
            // what was printed, passed, failed, skipped
            ("", 0, 0, 0),
            ("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out", 3, 0, 0),
            ("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured\r", 3, 2, 1),
            ("test result: ok. 1 passed; 0 failed\ntest result: ok. 2 passed; 0 failed", 3, 0, 0),
            ("skipped: gro: no kernel WireGuard\ntest result: ok. 2 passed; 0 failed", 1, 0, 1),
            ("skipped: a: no x\nskipped: a: no x\ntest result: ok. 2 passed; 0 failed", 1, 0, 1),
            ("test a ... skipped: a: no x\nok\ntest result: ok. 1 passed; 0 failed", 0, 0, 1),
            ("skipped: this is about nothing\ntest result: ok. 2 passed; 0 failed", 2, 0, 0),
            ("test skips ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored", 1, 0, 0),
        ];
        for (output, passed, failed, skipped) in cases {
            assert_eq!(tally(output), Tally { passed, failed, skipped }, "{output}");
        }
    }

    #[test]
    fn the_closing_line_is_plain() {
        let mut total = Tally { passed: 4, failed: 0, skipped: 1 };
        total += Tally::failure();
        assert_eq!(total.to_string(), "4 passed, 1 failed, 1 skipped");
    }
}
