//! What is wrong with a policy, in one line each, and where.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Characters of foreign text that a problem repeats.
const QUOTED_CHARS: usize = 80;

/// Stands before some texts and is no column of theirs.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// One thing that is wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PolicyProblem)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// One line; what came from the policy is escaped.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// Problems or warnings that one answer has at most: a file may be wrong at every byte.
const TOLD: usize = 1_000;

/// Collects the problems of one policy and knows the line and column of every byte.
pub(super) struct Report<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Found>,
    warnings: Vec<Found>,
    /// Beyond [`TOLD`].
    more: usize,
}

struct Found {
    at: usize,
    text: String,
}

impl<'t> Report<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { text, line_starts, problems: Vec::new(), warnings: Vec::new(), more: 0 }
    }

    /// Notes that what stands at byte `at` is wrong.
    pub(super) fn add(&mut self, at: usize, text: &str) {
        if self.problems.len() < TOLD {
            self.problems.push(Found { at, text: escaped(text) });
        } else {
            self.more += 1;
        }
    }

    /// Notes that what stands at byte `at` is odd.
    pub(super) fn warn(&mut self, at: usize, text: &str) {
        if self.warnings.len() < TOLD {
            self.warnings.push(Found { at, text: escaped(text) });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The line of byte `at`, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// The warnings, or what is wrong; in the order of the text.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Vec<Problem>> {
        if self.problems.is_empty() {
            let warnings = std::mem::take(&mut self.warnings);
            return Ok(self.placed(warnings));
        }
        let problems = std::mem::take(&mut self.problems);
        Err(self.placed(problems))
    }

    /// One walk over the text: a line may be long and have many problems.
    fn placed(&self, mut found: Vec<Found>) -> Vec<Problem> {
        found.sort_by_key(|found| found.at);
        if let Some(Found { at, .. }) = found.last()
            && found.len() == TOLD
            && self.more > 0
        {
            found
                .push(Found { at: *at, text: format!("and {} more that are not told", self.more) });
        }
        let (mut line, mut column, mut counted) = (0, 1, 0);
        let problems = found.into_iter().map(|Found { at, text }| {
            let at = self.text.floor_char_boundary(at);
            if self.line(at) != line {
                line = self.line(at);
                column = 1;
                counted = self.line_starts[line - 1];
                if counted == 0 && self.text.starts_with(BYTE_ORDER_MARK) {
                    counted = BYTE_ORDER_MARK.len_utf8();
                }
            }
            column += self.text.get(counted..at).unwrap_or_default().chars().count();
            counted = counted.max(at);
            Problem { line, column, text }
        });
        problems.collect()
    }
}

/// A word of the policy inside a problem: in backticks, cut where it is endless.
pub(super) fn quoted(word: &str) -> String {
    match word.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("`{}…`", &word[..end]),
        None => format!("`{word}`"),
    }
}

/// Whether a person who reads the text sees the character.
pub(super) fn is_visible(c: char) -> bool {
    // What breaks lines, joins, hides or turns text around without a glyph of its own.
    const UNSEEN: [std::ops::RangeInclusive<char>; 6] = [
        '\u{ad}'..='\u{ad}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{e0000}'..='\u{e007f}',
    ];
    !c.is_control() && !UNSEEN.iter().any(|range| range.contains(&c))
}

/// The text in one line, everything unseen written out.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_visible(c) { line.push(c) } else { line.extend(c.escape_default()) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Report, TOLD, escaped, quoted};

    #[test]
    fn columns_are_characters() {
        let text = "\u{feff}mode = 1\r\n# äöü\n\"ä\" = 𝄞x";
        let cases = [("mode", 1, 1), ("1", 1, 8), ("#", 2, 1), ("\"ä", 3, 1), ("x", 3, 8)];
        for (what, line, column) in cases {
            let mut report = Report::of(text);
            report.add(text.find(what).unwrap(), what);
            let problem = report.finish().unwrap_err().remove(0);
            assert_eq!((problem.line, problem.column), (line, column), "{what}");
        }
        let mut report = Report::of("");
        report.add(7, "behind the end");
        assert_eq!(report.finish().unwrap_err()[0].to_string(), "1:1: behind the end");
    }

    #[test]
    fn what_is_wrong_everywhere_is_told_in_part() {
        let text = "!".repeat(3 * TOLD);
        let mut report = Report::of(&text);
        (0..3 * TOLD).for_each(|at| report.add(at, "wrong"));
        let problems = report.finish().unwrap_err();
        assert_eq!(problems.len(), TOLD + 1);
        assert_eq!(problems[TOLD].to_string(), "1:1000: and 2000 more that are not told");
    }

    #[test]
    fn foreign_text_stays_in_its_line() {
        assert_eq!(escaped("a\nb\u{1b}[31m\u{202e}é"), "a\\nb\\u{1b}[31m\\u{202e}é");
        assert_eq!(quoted(&"ä".repeat(81)), format!("`{}…`", "ä".repeat(80)));
    }
}
