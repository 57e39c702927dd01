//! `flowctl policy replay`: whose stored flows would have got another verdict.

use std::path::Path;

use hyper::Method;

use super::{read, wrong};
use crate::{
    ctl::{
        client::Client,
        error::CtlError,
        filters::Filters,
        output::{Format, Screen},
        table::{Align, Column, Table, Tone, Value},
        text,
    },
    flows::{Tally, Verdict},
    wire::{self, Change, Replay},
};

const COLUMNS: [Column; 8] = [
    ("PEER", Align::Left, 0),
    ("WAS", Align::Left, 0),
    ("RULE", Align::Left, 4),
    ("WOULD BE", Align::Left, 0),
    ("RULE", Align::Left, 1),
    ("FLOWS", Align::Right, 2),
    ("PACKETS", Align::Right, 3),
    ("BYTES", Align::Right, 2),
];

/// Replays what is stored under the policy in a file.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    file: &Path,
    filters: &Filters,
) -> Result<(), CtlError> {
    let body = read(file)?;
    let answer: Replay = client
        .send_text(Method::POST, "/v1/policy/replay", &filters.pairs(&screen.clock)?, body)
        .await?;
    if !answer.problems.is_empty() {
        return Err(wrong(file, &answer.problems));
    }
    show(screen, format, &answer)
}

fn show(screen: &mut Screen, format: Format, replay: &Replay) -> Result<(), CtlError> {
    match format {
        Format::Table => table(screen, replay)?,
        Format::Json => screen.json(replay)?,
        Format::Jsonl => {
            for change in &replay.changes {
                screen.json_line(change)?;
            }
        }
        Format::Csv => {
            let rows = replay.changes.iter().map(wire::change_csv_row);
            screen.csv(&wire::CHANGE_CSV_COLUMNS, rows)?;
        }
    }
    screen.flush()
}

fn table(screen: &mut Screen, replay: &Replay) -> Result<(), CtlError> {
    if replay.changes.is_empty() {
        screen.line("No verdict changes.")?;
    } else {
        let mut table = Table::new(&COLUMNS);
        for change in &replay.changes {
            table.row(row(change));
        }
        screen.table(table)?;
    }
    screen.line(&format!("\n{}", totals(screen, replay)))
}

fn row(change: &Change) -> Vec<Value> {
    let Change { peer, was, was_rule, would_be, rule, traffic } = change;
    vec![
        or_nobody(peer.as_deref(), "-"),
        verdict(*was),
        or_nobody(was_rule.as_deref(), "(no rule)"),
        verdict(*would_be),
        or_nobody(rule.as_deref(), "(no rule)"),
        text::count(traffic.flows).into(),
        text::count(traffic.packets).into(),
        text::bytes(traffic.bytes).into(),
    ]
}

fn or_nobody(name: Option<&str>, nobody: &str) -> Value {
    name.map_or_else(|| Value::toned(nobody, Tone::Dim), |name| text::visible(name).into())
}

fn verdict(verdict: Verdict) -> Value {
    let tone = match verdict {
        Verdict::Allow => Tone::Good,
        Verdict::Deny => Tone::Bad,
    };
    Value::toned(verdict.word(), tone)
}

/// What would be said of everything that was replayed, changed or not, and what that was.
fn totals(screen: &Screen, replay: &Replay) -> String {
    let Replay { problems: _, since, until, flows, changes: _, denied, allowed, unjudged } = replay;
    let mut text = format!(
        "Of {} flows, {} would be allowed {}, {} denied {}",
        text::count(*flows),
        text::count(allowed.flows),
        carried(allowed),
        text::count(denied.flows),
        carried(denied),
    );
    if unjudged.packets != 0 {
        text += &format!("; not judged: {} {}", text::count(unjudged.flows), carried(unjudged));
    }
    let since = since.map(|since| format!(" from {}", screen.clock.full(since)));
    let until = screen.clock.full(*until);
    text + &format!("\nStored records{} to {until}", since.unwrap_or_default())
}

fn carried(Tally { flows: _, packets, bytes }: &Tally) -> String {
    format!("({} packets, {})", text::count(*packets), text::bytes(*bytes))
}

#[cfg(test)]
mod tests;
