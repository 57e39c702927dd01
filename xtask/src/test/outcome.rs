//! What tests came to: the numbers, and which failed with what they said.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
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

/// A test that failed, or what else went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) name: String,
    /// The first lines of what it said.
    pub(super) said: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, said } = self;
        write!(f, "{name}")?;
        said.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// What any number of tests came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) failures: Vec<Failure>,
}

impl Outcome {
    /// Something broke that is no test: it counts as one failed test, or else would look green.
    pub(super) fn broken(what: impl Into<String>) -> Self {
        let tally = Tally { failed: 1, ..Tally::default() };
        Self { tally, failures: vec![Failure { name: what.into(), said: Vec::new() }] }
    }

    /// Whether nothing ran.
    pub(super) fn is_empty(&self) -> bool {
        self.tally == Tally::default()
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        let Self { tally, failures } = other;
        self.tally += tally;
        self.failures.extend(failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_plain() {
        let mut total =
            Outcome { tally: Tally { passed: 4, failed: 0, skipped: 1 }, failures: Vec::new() };
        total += Outcome::broken("no machine");
        assert_eq!(total.tally.to_string(), "4 passed, 1 failed, 1 skipped");
        assert_eq!(total.failures.len(), 1);
    }

    #[test]
    fn what_a_test_said_stands_below_its_name() {
        let failure = |said: &[&str]| Failure {
            name: "a::b".to_owned(),
            said: said.iter().map(|&line| line.to_owned()).collect(),
        };
        assert_eq!(failure(&[]).to_string(), "a::b");
        assert_eq!(failure(&["one", "two"]).to_string(), "a::b\n    one\n    two");
    }
}
