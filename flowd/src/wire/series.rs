//! Traffic over time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Timestamp, Traffic,
    top::{key, values},
};
use crate::flows::{self, Group, Grouping, Line};

/// One step of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// Its first instant.
    pub start: Timestamp,
    /// What was recorded in it; a flow that is active in several steps counts in each of them.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One key over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeriesLine {
    /// As in a row of `/v1/top`.
    pub key: Option<String>,
    /// As in a row of `/v1/top`.
    pub values: Vec<Option<String>>,
    /// Of the whole range.
    pub total: Traffic,
    /// A point for each step of the range.
    pub points: Vec<Point>,
}

/// `GET /v1/series`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// From when on. The first step may begin before it; what was recorded there is not counted.
    pub since: Timestamp,
    /// Until now where the query set no end.
    pub until: Timestamp,
    /// The length of a step, such as `5m`.
    pub step: String,
    /// What the lines are of, if anything.
    pub by: Option<Grouping>,
    /// Everything that matches, in the whole range.
    pub total: Traffic,
    /// Everything that matches: a point for each step of the range, also where there was nothing.
    pub points: Vec<Point>,
    /// Those that have most, most first.
    pub lines: Vec<SeriesLine>,
    /// What is in none of the lines; `None` where there is nothing else.
    pub rest: Option<SeriesLine>,
}

impl Series {
    /// The shape of `series`, whose lines are of `groups`, for the range it was made for.
    pub fn new(
        (since, until): (Timestamp, Timestamp),
        by: Option<(Grouping, Vec<Group>)>,
        series: &flows::Series,
    ) -> Self {
        let step = series.step();
        let points = |line: &Line| -> Vec<Point> {
            let starts =
                std::iter::successors(Some(step.around(since.0)), |at| Some(at + step.ms()));
            let point = |start| {
                let sum = line.points.get(&start).copied().unwrap_or_default();
                Point { start: Timestamp(start), traffic: Traffic::from(&sum) }
            };
            starts.take_while(|start| *start < until.0).map(point).collect()
        };
        let (by, groups) = by.map_or((None, Vec::new()), |(by, groups)| (Some(by), groups));
        let (lines, rest) = series.lines();
        let sum = series.sum();
        let line = |group: Option<&Group>, line: &Line| SeriesLine {
            key: group.and_then(key),
            values: group.map(values).unwrap_or_default(),
            total: Traffic::from(&line.total),
            points: points(line),
        };
        let has_rest = by.is_some() && !rest.points.is_empty();
        Self {
            since,
            until,
            step: step.to_string(),
            by,
            total: Traffic::from(&sum.total),
            points: points(&sum),
            lines: groups.iter().zip(lines).map(|(group, one)| line(Some(group), one)).collect(),
            rest: has_rest.then(|| line(None, rest)),
        }
    }
}
