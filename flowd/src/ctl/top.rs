//! `flowctl top`: who did most.

use super::{
    bars::bar,
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Column, Table, Tone, Value},
    text,
};
use crate::{
    flows::{By, Grouping, Sort, Tally},
    wire::{self, Top, TopRow, Traffic, share},
};

/// Cells of a whole bar.
const BAR: usize = 10;

/// Shows the ranking in the wanted form.
pub(super) fn run(screen: &mut Screen, format: Format, top: &Top) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, top)?,
        Format::Json => screen.json(top)?,
        Format::Jsonl => {
            for row in &top.rows {
                screen.json_line(row)?;
            }
        }
        Format::Csv => {
            let columns = wire::top_csv_columns(&top.by);
            screen.csv(&columns, top.rows.iter().map(wire::top_csv_row))?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, top: &Top) -> Result<(), CtlError> {
    if top.rows.is_empty() {
        return screen.line("No flows match.");
    }
    let mut columns = key_columns(&top.by);
    columns.extend(sum_columns(top.sort));
    let mut table = Table::new(&columns);
    for TopRow { values, share, traffic, key: _ } in &top.rows {
        let mut row = key_cells(values);
        row.extend(sums(traffic, *share));
        table.row(row);
    }
    if top.rest.packets > 0 {
        let mut row = others(&top.by);
        row.extend(sums(
            &top.rest,
            share(sorted(top.sort, &top.rest), sorted(top.sort, &top.total)),
        ));
        table.row(row);
    }
    screen.table(table)?;
    let Traffic { flows, packets, bytes, .. } = top.total;
    screen.line(&format!(
        "\n{} of {} shown; in all {flows} flows, {} packets, {}",
        top.rows.len(),
        top.keys,
        text::count(packets),
        text::bytes(bytes)
    ))
}

/// What is ranked by.
pub(super) fn sorted(sort: Sort, traffic: &Traffic) -> u64 {
    match sort {
        Sort::Bytes => traffic.bytes,
        Sort::Packets => traffic.packets,
        Sort::Flows => traffic.flows,
    }
}

/// A column for each property.
pub(super) fn key_columns(by: &Grouping) -> Vec<Column> {
    let title = |by: &By| match by {
        By::Peer => "PEER",
        By::User => "USER",
        By::Src => "SOURCE",
        By::Dst => "DESTINATION",
        By::DstPort => "DST-PORT",
        By::Protocol => "PROTO",
        By::Rule => "RULE",
        By::Verdict => "VERDICT",
    };
    by.properties().iter().map(|by| (title(by), Align::Left, 0)).collect()
}

/// The values of a row.
pub(super) fn key_cells(values: &[Option<String>]) -> Vec<Value> {
    let cell = |value: &Option<String>| match value {
        Some(value) => text::visible(value).into(),
        None => Value::toned("(none)", Tone::Dim),
    };
    values.iter().map(cell).collect()
}

/// In the place of values: what is in no other row.
pub(super) fn others(by: &Grouping) -> Vec<Value> {
    let mut cells = vec![Value::toned("(others)", Tone::Dim)];
    cells.resize(by.properties().len(), "".into());
    cells
}

/// What is sorted by stays on the narrowest terminal.
fn sum_columns(sort: Sort) -> [Column; 6] {
    let unless = |sorted, rank| if sort == sorted { 0 } else { rank };
    [
        ("FLOWS", Align::Right, unless(Sort::Flows, 3)),
        ("PACKETS", Align::Right, unless(Sort::Packets, 4)),
        ("BYTES", Align::Right, unless(Sort::Bytes, 3)),
        ("SHARE", Align::Left, 2),
        ("ALLOWED", Align::Right, 5),
        ("DENIED", Align::Right, 1),
    ]
}

fn sums(traffic: &Traffic, share: f64) -> [Value; 6] {
    [
        text::count(traffic.flows).into(),
        text::count(traffic.packets).into(),
        text::bytes(traffic.bytes).into(),
        format!("{:5.1}% {}", share * 100.0, bar(share, BAR)).into(),
        text::bytes(traffic.allowed.bytes).into(),
        denied(&traffic.denied),
    ]
}

/// Flows that are denied; packets where they belong to no flow or to one that began allowed.
fn denied(denied: &Tally) -> Value {
    match (denied.flows, denied.packets) {
        (0, 0) => "0".into(),
        (0, packets) => Value::toned(format!("{} packets", text::count(packets)), Tone::Bad),
        (1, _) => Value::toned("1 flow", Tone::Bad),
        (flows, _) => Value::toned(format!("{} flows", text::count(flows)), Tone::Bad),
    }
}

#[cfg(test)]
mod tests;
