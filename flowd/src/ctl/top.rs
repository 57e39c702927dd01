//! `flowctl top`: who did most.

use super::{
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Column, Table, Tone, Value},
    text,
};
use crate::{
    flows::{By, Sort, Tally},
    wire::{self, Top, TopRow, Traffic},
};

/// Cells of a whole bar.
const BAR: u64 = 10;

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
            screen.csv(&wire::TOP_CSV_COLUMNS, top.rows.iter().map(wire::top_csv_row))?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, top: &Top) -> Result<(), CtlError> {
    if top.rows.is_empty() {
        return screen.line("No flows match.");
    }
    let mut table = Table::new(&columns(top.by, top.sort));
    for one in &top.rows {
        table.row(row(top, one));
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

/// What is sorted by stays on the narrowest terminal.
fn columns(by: By, sort: Sort) -> [Column; 7] {
    let key = match by {
        By::Peer => "PEER",
        By::User => "USER",
        By::Src => "SOURCE",
        By::Dst => "DESTINATION",
        By::DstPort => "DST-PORT",
        By::Protocol => "PROTO",
        By::Rule => "RULE",
        By::Verdict => "VERDICT",
    };
    let unless = |sorted, rank| if sort == sorted { 0 } else { rank };
    [
        (key, Align::Left, 0),
        ("FLOWS", Align::Right, unless(Sort::Flows, 3)),
        ("PACKETS", Align::Right, unless(Sort::Packets, 4)),
        ("BYTES", Align::Right, unless(Sort::Bytes, 3)),
        ("SHARE", Align::Left, 2),
        ("ALLOWED", Align::Right, 5),
        ("DENIED", Align::Right, 1),
    ]
}

fn row(top: &Top, TopRow { key, traffic }: &TopRow) -> Vec<Value> {
    let key = match key {
        Some(key) => text::visible(key).into(),
        None => Value::toned("(none)", Tone::Dim),
    };
    let sorted = |traffic: &Traffic| match top.sort {
        Sort::Bytes => traffic.bytes,
        Sort::Packets => traffic.packets,
        Sort::Flows => traffic.flows,
    };
    vec![
        key,
        text::count(traffic.flows).into(),
        text::count(traffic.packets).into(),
        text::bytes(traffic.bytes).into(),
        share(sorted(traffic), sorted(&top.total)).into(),
        text::bytes(traffic.allowed.bytes).into(),
        denied(&traffic.denied),
    ]
}

/// The part of the whole in per cent, and as a bar with the resolution of an eighth of a cell.
fn share(part: u64, whole: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let eighths = (share * (BAR * 8) as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{:5.1}% {bar}", share * 100.0)
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
