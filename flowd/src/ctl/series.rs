//! `flowctl series`: traffic over time.

use super::{
    bars::{bar, sparkline},
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Value},
    text,
    top::{key_cells, key_columns, others, sorted},
};
use crate::{
    flows::{Grouping, Sort},
    wire::{self, Point, Series, SeriesLine, Traffic, share},
};

/// Cells of the longest bar, and of a sparkline at most.
const BAR: usize = 30;
const SPARKLINE: usize = 48;

/// Shows the series in the wanted form; the bars are of what `sort` says.
pub(super) fn run(
    screen: &mut Screen,
    format: Format,
    series: &Series,
    sort: Sort,
) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, series, sort)?,
        Format::Json => screen.json(series)?,
        Format::Jsonl => match series.by {
            None => series.points.iter().try_for_each(|point| screen.json_line(point))?,
            Some(_) => {
                let lines = series.lines.iter().chain(&series.rest);
                lines.into_iter().try_for_each(|line| screen.json_line(line))?;
            }
        },
        Format::Csv => {
            let columns = wire::series_csv_columns(series.by.as_ref());
            screen.csv(&columns, wire::series_csv_rows(series).into_iter())?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, series: &Series, sort: Sort) -> Result<(), CtlError> {
    if series.total.packets == 0 {
        return screen.line("No flows match.");
    }
    let table = match &series.by {
        None => points(screen, series, sort),
        Some(by) => lines(series, by, sort),
    };
    screen.table(table)?;
    let Traffic { flows, packets, bytes, .. } = series.total;
    screen.line(&format!(
        "\n{} steps of {} from {} to {}; in all {flows} flows, {} packets, {}",
        series.points.len(),
        series.step,
        screen.clock.full(series.since),
        screen.clock.full(series.until),
        text::count(packets),
        text::bytes(bytes)
    ))
}

/// A row for each step, with a bar.
fn points(screen: &Screen, series: &Series, sort: Sort) -> Table {
    let mut table = Table::new(&[
        ("START", Align::Left, 0),
        ("FLOWS", Align::Right, if sort == Sort::Flows { 0 } else { 3 }),
        ("PACKETS", Align::Right, if sort == Sort::Packets { 0 } else { 4 }),
        ("RX", Align::Right, 5),
        ("TX", Align::Right, 5),
        ("BYTES", Align::Right, if sort == Sort::Bytes { 0 } else { 3 }),
        ("", Align::Left, 1),
    ]);
    table.zone("START", &screen.clock.zone());
    let value = |point: &Point| sorted(sort, &point.traffic);
    let most = series.points.iter().map(value).max().unwrap_or_default();
    for point in &series.points {
        let Traffic { flows, packets, bytes, counters, .. } = &point.traffic;
        table.row(vec![
            screen.clock.short(point.start).into(),
            text::count(*flows).into(),
            text::count(*packets).into(),
            text::bytes(counters.rx_bytes).into(),
            text::bytes(counters.tx_bytes).into(),
            text::bytes(*bytes).into(),
            bar(share(value(point), most), BAR).into(),
        ]);
    }
    table
}

/// A row for each key, with a sparkline.
fn lines(series: &Series, by: &Grouping, sort: Sort) -> Table {
    let mut columns = key_columns(by);
    columns.extend([
        ("FLOWS", Align::Right, if sort == Sort::Flows { 0 } else { 3 }),
        ("PACKETS", Align::Right, if sort == Sort::Packets { 0 } else { 4 }),
        ("BYTES", Align::Right, if sort == Sort::Bytes { 0 } else { 3 }),
        ("SHARE", Align::Right, 2),
        ("OVER TIME", Align::Left, 1),
    ]);
    let mut table = Table::new(&columns);
    let whole = sorted(sort, &series.total);
    let mut row = |mut cells: Vec<Value>, line: &SeriesLine| {
        let Traffic { flows, packets, bytes, .. } = &line.total;
        let values: Vec<_> = line.points.iter().map(|point| sorted(sort, &point.traffic)).collect();
        cells.extend([
            text::count(*flows).into(),
            text::count(*packets).into(),
            text::bytes(*bytes).into(),
            format!("{:.1}%", share(sorted(sort, &line.total), whole) * 100.0).into(),
            sparkline(&values, SPARKLINE).into(),
        ]);
        table.row(cells);
    };
    for line in &series.lines {
        row(key_cells(&line.values), line);
    }
    if let Some(rest) = &series.rest {
        row(others(by), rest);
    }
    table
}

#[cfg(test)]
mod tests;
