//! Rankings and series as rows of text.

use super::{
    Point, Series, SeriesLine, TopRow, Traffic,
    csv::{counters, csv_text},
};
use crate::flows::{Grouping, Tally};

const SUMS: [&str; 13] = [
    "flows",
    "packets",
    "bytes",
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "allowed_flows",
    "allowed_packets",
    "allowed_bytes",
    "denied_flows",
    "denied_packets",
    "denied_bytes",
];

/// The columns of a row of a ranking: `key` where it is by one property, else one for each.
pub fn top_csv_columns(by: &Grouping) -> Vec<&'static str> {
    let mut columns = key_columns(by);
    columns.extend(SUMS);
    columns.push("share");
    columns
}

/// The cells of a row of a ranking, in the order of [`top_csv_columns`].
pub fn top_csv_row(top: &TopRow) -> Vec<String> {
    let TopRow { key: _, values, share, traffic } = top;
    let mut row: Vec<_> = values.iter().map(cell).collect();
    row.extend(sums(traffic));
    row.push(format!("{share:.6}"));
    row
}

/// The columns of a point of a series.
pub fn series_csv_columns(by: Option<&Grouping>) -> Vec<&'static str> {
    let mut columns = vec!["start"];
    columns.extend(by.into_iter().flat_map(|_| ["line"]));
    columns.extend(by.into_iter().flat_map(key_columns));
    columns.extend(SUMS);
    columns
}

/// The points of a series, in the order of [`series_csv_columns`]: those of every line where there
/// are lines (`line` is its place, or `rest`), else those of everything.
pub fn series_csv_rows(series: &Series) -> Vec<Vec<String>> {
    let Some(by) = &series.by else {
        return series.points.iter().map(|point| point_row(point, Vec::new())).collect();
    };
    let none = vec![None; by.properties().len()];
    let mut rows = Vec::new();
    let lines = series.lines.iter().enumerate();
    let named = lines.map(|(index, line)| ((index + 1).to_string(), &line.values, line));
    let rest = series.rest.iter().map(|line| ("rest".to_owned(), &none, line));
    for (name, values, SeriesLine { points, .. }) in named.chain(rest) {
        let mut cells = vec![name];
        cells.extend(values.iter().map(cell));
        rows.extend(points.iter().map(|point| point_row(point, cells.clone())));
    }
    rows
}

fn point_row(point: &Point, cells: Vec<String>) -> Vec<String> {
    let mut row = vec![point.start.to_string()];
    row.extend(cells);
    row.extend(sums(&point.traffic));
    row
}

fn key_columns(by: &Grouping) -> Vec<&'static str> {
    match by.properties() {
        [_] => vec!["key"],
        several => several.iter().map(|by| by.word()).collect(),
    }
}

fn cell(value: &Option<String>) -> String {
    value.as_deref().map(csv_text).unwrap_or_default()
}

fn sums(traffic: &Traffic) -> Vec<String> {
    let Traffic { flows, packets, bytes, counters: each, allowed, denied } = traffic;
    let mut row: Vec<_> = [flows, packets, bytes].map(u64::to_string).into();
    row.extend(counters(each));
    for Tally { flows, packets, bytes } in [allowed, denied] {
        row.extend([flows, packets, bytes].map(u64::to_string));
    }
    row
}
