//! What a run of libtest says, line by line: what of it a person should see, and what it came to.
//!
//! - `test NAME ... ok`: counted by the result, hidden unless somebody watches.
//! - `---- NAME stdout ----` and what follows: what a failed test said; its beginning is kept for
//!   the end of the run.
//! - `test result: …`: the numbers.

use std::collections::BTreeSet;

use super::outcome::{Failure, Outcome, Tally};

/// How many lines of what a failed test said are kept.
const SAID_LINES: usize = 10;

/// What becomes of the lines about tests that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// Somebody watches the progress.
    Shown,
    /// The output is read later, for its failures.
    Hidden,
}

/// Reads the output of any number of test executables.
#[derive(Debug)]
pub(super) struct Report {
    passing: Passing,
    results: Tally,
    /// Tests that passed by saying why they could not run; a test may say it more than once.
    skipped: BTreeSet<String>,
    failures: Vec<Failure>,
    /// How many of `failures` are of executables that have ended: the next may use their names.
    earlier_failures: usize,
    /// The test whose line is not complete, with one thread.
    running: Option<String>,
    /// The failed test that is speaking, and what it has said.
    section: Option<(String, Vec<String>)>,
    last_ended: Option<String>,
}

impl Report {
    pub(super) fn new(passing: Passing) -> Self {
        Self {
            passing,
            results: Tally::default(),
            skipped: BTreeSet::new(),
            failures: Vec::new(),
            earlier_failures: 0,
            running: None,
            section: None,
            last_ended: None,
        }
    }

    /// Takes one line of the output, and returns what of it is worth printing.
    #[must_use]
    pub(super) fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let trimmed = line.trim();
        if let Some(counts) = trimmed.strip_prefix("test result: ") {
            self.end_section();
            self.results += counted(counts);
            self.earlier_failures = self.failures.len();
            self.running = None;
        } else if let Some(test) = section(trimmed) {
            self.end_section();
            self.section = Some((test.to_owned(), Vec::new()));
        } else if trimmed == "failures:" || is_head(trimmed) {
            self.end_section();
        } else if let Some((_, said)) = &mut self.section {
            said.push(line.trim_end().to_owned());
        } else if let Some((test, what)) = test_line(trimmed) {
            self.running = Some(test.to_owned());
            return self.told(what, line);
        } else {
            return self.told(trimmed, line);
        }
        Some(line)
    }

    /// What tests came to so far.
    pub(super) fn outcome(&self) -> Outcome {
        let Tally { passed, failed, skipped } = self.results;
        let said = self.skipped.len();
        let passed = passed.saturating_sub(said);
        // An executable that dies never says its result.
        let failed = failed.max(self.failures.len());
        let tally = Tally { passed, failed, skipped: skipped + said };
        Outcome { tally, failures: self.failures.clone() }
    }

    /// The test that ended last.
    pub(super) fn last_ended(&self) -> Option<&str> {
        self.last_ended.as_deref()
    }

    /// Takes what stands behind `test NAME ... `, or alone on a line when something else was
    /// printed in between.
    fn told<'a>(&mut self, what: &'a str, line: &'a str) -> Option<&'a str> {
        if let Some(test) = skip(what) {
            self.skipped.insert(test.to_owned());
            return Some(what);
        }
        if !matches!(what, "ok" | "FAILED") {
            return Some(line);
        }
        let Some(test) = self.running.take() else { return Some(line) };
        if what == "FAILED" {
            self.failure(&test);
        }
        self.last_ended = Some(test);
        (what == "FAILED" || self.passing == Passing::Shown).then_some(line)
    }

    fn end_section(&mut self) {
        if let Some((test, said)) = self.section.take() {
            self.failure(&test).said = beginning(&said);
        }
    }

    /// The failure of a test, noted once.
    fn failure(&mut self, test: &str) -> &mut Failure {
        let known = &self.failures[self.earlier_failures..];
        let known = known.iter().position(|failure| failure.name == test);
        let index = known.map_or(self.failures.len(), |index| self.earlier_failures + index);
        if index == self.failures.len() {
            self.failures.push(Failure { name: test.to_owned(), said: Vec::new() });
        }
        &mut self.failures[index]
    }
}

/// The first lines of what a failed test said: from its panic on, without the backtrace.
pub(super) fn beginning(said: &[String]) -> Vec<String> {
    let is_panic = |line: &String| line.starts_with("thread '") && line.contains("panicked at ");
    let from = said.iter().position(is_panic).unwrap_or(0);
    let lines = said[from..].iter().take_while(|line| *line != "stack backtrace:");
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_"));
    lines.take(SAID_LINES).cloned().collect()
}

/// The test's name in `---- NAME stdout ----`.
fn section(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// Whether this is an executable's first line, `running 3 tests`.
fn is_head(line: &str) -> bool {
    let mut words = line.split(' ');
    words.next() == Some("running")
        && words.next().is_some_and(|number| number.parse::<usize>().is_ok())
        && matches!(words.next(), Some("test" | "tests"))
}

/// `(NAME, what)` in `test NAME ... what`.
fn test_line(line: &str) -> Option<(&str, &str)> {
    let (test, what) = line.strip_prefix("test ")?.split_once(" ...")?;
    Some((test.strip_suffix(" - should panic").unwrap_or(test), what.trim()))
}

/// Reads `ok. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
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
fn skip(line: &str) -> Option<&str> {
    let (test, why) = line.strip_prefix("skipped: ")?.split_once(": ")?;
    (!why.is_empty()).then_some(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which `b` failed.
    const FAILED: &str = "
running 3 tests
test a ... ok
test b ... FAILED
test c - should panic ... ok

failures:

---- b stdout ----
flowd: started
test of something ... ok
thread 'b' (11) panicked at src/b.rs:3:5:
assertion `left == right` failed
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

failures:
    b

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";

    fn read(output: &str, passing: Passing) -> (Outcome, Vec<&str>) {
        let mut report = Report::new(passing);
        let shown = output.lines().filter_map(|line| report.line(line)).collect();
        (report.outcome(), shown)
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
            ("test a ... FAILED\ntest b ... ok", 0, 1, 0),
            (
                "test a ... FAILED\ntest result: FAILED. 1 passed; 1 failed\ntest a ... FAILED",
                1,
                2,
                0,
            ),
            (FAILED, 2, 1, 0),
        ];
        for (output, passed, failed, skipped) in cases {
            let (outcome, _) = read(output, Passing::Hidden);
            assert_eq!(outcome.tally, Tally { passed, failed, skipped }, "{output}");
        }
    }

    #[test]
    fn only_what_did_not_just_pass_is_shown() {
        let cases: [(&str, &[&str]); 8] = [
            // what was printed, what of it is shown
            ("test a ... ok", &[]),
            ("test a - should panic ... ok\r", &[]),
            ("test a ... FAILED", &["test a ... FAILED"]),
            ("test a ... ignored, why", &["test a ... ignored, why"]),
            ("test a ... skipped: a: no x\nok", &["skipped: a: no x"]),
            ("skipped: a: no x\ntest a ... ok", &["skipped: a: no x"]),
            ("test a ... [1.2] oops\nFAILED", &["test a ... [1.2] oops", "FAILED"]),
            ("ok", &["ok"]),
        ];
        for (output, expected) in cases {
            let (_, shown) = read(output, Passing::Hidden);
            assert_eq!(shown, expected, "{output}");
        }
        let (_, shown) = read(FAILED, Passing::Hidden);
        let passed = ["test a ... ok", "test c - should panic ... ok"];
        let expected: Vec<_> = FAILED.lines().filter(|line| !passed.contains(line)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn somebody_who_watches_sees_everything() {
        let (_, shown) = read(FAILED, Passing::Shown);
        assert_eq!(shown, FAILED.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_failed_test_is_kept_with_its_panic() {
        let (outcome, _) = read(FAILED, Passing::Hidden);
        let said = [
            "thread 'b' (11) panicked at src/b.rs:3:5:",
            "assertion `left == right` failed",
            "  left: 1",
            " right: 2",
        ];
        let said = said.map(str::to_owned).to_vec();
        assert_eq!(outcome.failures, [Failure { name: "b".to_owned(), said }]);
    }

    #[test]
    fn what_a_failed_test_said_is_cut() {
        let numbers: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let numbers = numbers.join("\n");
        let cases = [
            // what it said, first and last of what is kept, how many lines
            ("Error: no disk".to_owned(), "Error: no disk", "Error: no disk", 1),
            (numbers.clone(), "0", "9", SAID_LINES),
            (format!("thread 'a' panicked at x:\n{numbers}"), "thread 'a' panicked at x:", "8", 10),
            (
                "thread 'a' panicked at x:\nwhy\nstack backtrace:\n   0: main".to_owned(),
                "thread 'a' panicked at x:",
                "why",
                2,
            ),
            (
                "thread 'a' panicked at x:\nwhy\nthread 'b' panicked at y:\nelse".to_owned(),
                "thread 'a' panicked at x:",
                "else",
                4,
            ),
        ];
        for (said, first, last, count) in cases {
            let output = format!("failures:\n\n---- a stdout ----\n{said}\n\nfailures:\n    a\n");
            let (outcome, _) = read(&output, Passing::Hidden);
            let kept = &outcome.failures[0].said;
            assert_eq!(kept.first().map(String::as_str), Some(first), "{said}");
            assert_eq!(kept.last().map(String::as_str), Some(last), "{said}");
            assert_eq!(kept.len(), count, "{said}");
        }
    }

    #[test]
    fn the_test_that_ended_last_is_known() {
        let mut report = Report::new(Passing::Hidden);
        for line in ["test a ... ok", "test b ... [1.2] oops", "ok", "test c ... Oops: 0000"] {
            let _shown = report.line(line);
        }
        assert_eq!(report.last_ended(), Some("b"));
    }
}
