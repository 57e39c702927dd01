//! Traffic over time: totals of equal steps, aligned to UTC, and who they are of.
//!
//! - A record belongs to the step in which its window ends, as to a range.
//! - A flow that is active in several steps counts in each of them, and once in the total.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

use super::{Group, Grouping, Opening, Record, Summary};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The length of a step: whole minutes, and a day has a whole number of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(i64);

/// It is no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be such as 1m, 5m, 15m, 1h, 6h or 1d: from a minute to a day, and a part of it")]
pub struct NotAStep;

impl Step {
    const USUAL: [Self; 9] = [
        Self(MINUTE_MS),
        Self(5 * MINUTE_MS),
        Self(15 * MINUTE_MS),
        Self(30 * MINUTE_MS),
        Self(HOUR_MS),
        Self(3 * HOUR_MS),
        Self(6 * HOUR_MS),
        Self(12 * HOUR_MS),
        Self(DAY_MS),
    ];

    /// In milliseconds.
    pub fn ms(self) -> i64 {
        self.0
    }

    /// The shortest usual one of which a range has no more than `points`; else a day.
    pub fn of_range(range_ms: i64, points: i64) -> Self {
        let short = |step: &Self| range_ms / step.0 <= points;
        Self::USUAL.into_iter().find(short).unwrap_or(Self(DAY_MS))
    }

    /// The start of the step around an instant.
    pub fn around(self, ms: i64) -> i64 {
        ms.saturating_sub(ms.rem_euclid(self.0))
    }
}

impl FromStr for Step {
    type Err = NotAStep;

    fn from_str(text: &str) -> Result<Self, NotAStep> {
        let (number, unit_ms) = match text.char_indices().next_back().ok_or(NotAStep)? {
            (end, 'm') => (&text[..end], MINUTE_MS),
            (end, 'h') => (&text[..end], HOUR_MS),
            (end, 'd') => (&text[..end], DAY_MS),
            _ => return Err(NotAStep),
        };
        // `parse` would take a sign.
        let number = Some(number).filter(|number| !number.starts_with('+')).ok_or(NotAStep)?;
        let number = number.parse::<u16>().map_err(|_| NotAStep)?;
        let ms = i64::from(number) * unit_ms;
        if (MINUTE_MS..=DAY_MS).contains(&ms) && DAY_MS % ms == 0 {
            Ok(Self(ms))
        } else {
            Err(NotAStep)
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DAY_MS => f.write_str("1d"),
            ms if ms % HOUR_MS == 0 => write!(f, "{}h", ms / HOUR_MS),
            ms => write!(f, "{}m", ms / MINUTE_MS),
        }
    }
}

/// Sums of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Of the whole range.
    pub total: Summary,
    /// By the start of the step in Unix milliseconds; steps without a record have none.
    pub points: BTreeMap<i64, Summary>,
}

impl Line {
    fn absorb(&mut self, record: &Record, step: Step, opening: Opening) {
        let start_ms = step.around(record.window_end_ms);
        let since_ms = start_ms.max(opening.since_ms);
        self.points.entry(start_ms).or_default().absorb(record, Opening { since_ms, ..opening });
        self.total.absorb(record, opening);
    }

    fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        for (start_ms, sum) in &other.points {
            self.points.entry(*start_ms).or_default().merge(sum);
        }
    }
}

/// Lines over time; series of disjoint sets of records add up. There are as many lines as at the
/// beginning, whatever comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    step: Step,
    by: Option<Grouping>,
    /// Where each group's line is.
    groups: HashMap<Group, usize>,
    lines: Vec<Line>,
    /// What is in no group's line.
    rest: Line,
}

impl Series {
    /// A series of no records, with a line for each of these groups.
    pub fn new(step: Step, groups: Option<(Grouping, Vec<Group>)>) -> Self {
        let (by, groups) = groups.map_or((None, Vec::new()), |(by, groups)| (Some(by), groups));
        Self {
            step,
            by,
            lines: vec![Line::default(); groups.len()],
            groups: groups.into_iter().enumerate().map(|(index, group)| (group, index)).collect(),
            rest: Line::default(),
        }
    }

    /// The length of a step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// What the lines are of.
    pub fn by(&self) -> Option<&Grouping> {
        self.by.as_ref()
    }

    /// Adds what records of a group add up to in one step: `point` counts the flows that have their
    /// first record of the step there, `total` those that have their first record of the range there.
    pub fn add(&mut self, group: &Group, start_ms: i64, total: &Summary, point: &Summary) {
        let line = match self.groups.get(group) {
            Some(index) => &mut self.lines[*index],
            None => &mut self.rest,
        };
        line.total.merge(total);
        line.points.entry(start_ms).or_default().merge(point);
    }

    /// Adds one record of what begins with `opening`.
    pub fn absorb(&mut self, record: &Record, opening: impl Into<Opening>) {
        let index = self.by.as_ref().and_then(|by| self.groups.get(&by.group(record)));
        let line = match index {
            Some(index) => &mut self.lines[*index],
            None => &mut self.rest,
        };
        line.absorb(record, self.step, opening.into());
    }

    /// Adds a series of the same groups and steps.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!((self.step, &self.by), (other.step, &other.by), "they do not add up");
        self.rest.merge(&other.rest);
        for (mine, theirs) in self.lines.iter_mut().zip(&other.lines) {
            mine.merge(theirs);
        }
    }

    /// The lines of the groups in their order, and that of everything else.
    pub fn lines(&self) -> (&[Line], &Line) {
        (&self.lines, &self.rest)
    }

    /// Everything together.
    pub fn sum(&self) -> Line {
        let mut sum = self.rest.clone();
        self.lines.iter().for_each(|line| sum.merge(line));
        sum
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
