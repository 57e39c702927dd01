//! `flowctl flows`: pages of flows, newest first.

use super::{
    client::Client,
    error::CtlError,
    lists::FlowList,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value, WIDE},
    text, top,
};
use crate::{
    flows::Verdict,
    wire::{self, Flow, FlowPage, FlowState},
};

/// Flows of one request; the daemon gives at most so many.
const PAGE: u64 = 10_000;
/// Flows unless asked for more.
const DEFAULT: u64 = 100;

/// Fetches as many pages as needed and shows them, or a ranking of groups of flows.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    list: &FlowList,
) -> Result<(), CtlError> {
    if let Some(by) = &list.group_by {
        let top: wire::Top = client.query("/v1/top", &list.groups(by, &screen.clock)?).await?;
        return top::run(screen, format, &top);
    }
    let page = &list.page;
    let mut left = page.limit.unwrap_or(DEFAULT);
    let mut cursor = page.cursor.clone();
    let mut all = FlowPage { flows: Vec::new(), next_cursor: None };
    begin(screen, format)?;
    loop {
        let mut pairs = list.pairs(&screen.clock)?;
        pairs.push(("limit", left.min(PAGE).to_string()));
        pairs.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let answer: FlowPage = client.query("/v1/flows", &pairs).await?;
        left = left.saturating_sub(answer.flows.len() as u64);
        all.next_cursor = answer.next_cursor;
        match format {
            // What is one line a flow does not wait for the rest.
            Format::Jsonl | Format::Csv => lines(screen, format, &answer.flows)?,
            Format::Table | Format::Json => all.flows.extend(answer.flows),
        }
        if left == 0 || all.next_cursor.is_none() {
            break;
        }
        cursor.clone_from(&all.next_cursor);
    }
    show(screen, format, &all)?;
    if all.next_cursor.is_some() && format == Format::Table && page.limit.is_none() {
        text::tell(&format_args!(
            "these are the first {DEFAULT}; --limit N shows more, filters show others"
        ));
    }
    Ok(())
}

/// What stands before the first flow.
fn begin(screen: &mut Screen, format: Format) -> Result<(), CtlError> {
    match format {
        Format::Csv => screen.csv(&wire::FLOW_CSV_COLUMNS, std::iter::empty()),
        Format::Table | Format::Json | Format::Jsonl => Ok(()),
    }
}

/// A line for each flow.
fn lines(screen: &mut Screen, format: Format, flows: &[Flow]) -> Result<(), CtlError> {
    for flow in flows {
        match format {
            Format::Csv => screen.csv_line(&wire::flow_csv_row(flow))?,
            _ => screen.json_line(flow)?,
        }
    }
    Ok(())
}

/// What is shown as a whole.
fn show(screen: &mut Screen, format: Format, page: &FlowPage) -> Result<(), CtlError> {
    match format {
        Format::Table => {
            let table = table(screen, &page.flows);
            if table.is_empty() {
                screen.line("No flows match.")?;
            } else {
                screen.table(table)?;
            }
        }
        Format::Json => screen.json(page)?,
        Format::Jsonl | Format::Csv => {}
    }
    screen.flush()
}

fn table(screen: &Screen, flows: &[Flow]) -> Table {
    let mut table = Table::new(&[
        ("STATE", Align::Left, 0),
        ("START", Align::Left, 3),
        ("DURATION", Align::Right, 6),
        ("PEER", Align::Left, 0),
        ("USER", Align::Left, 9),
        ("PROTO", Align::Left, 0),
        ("SOURCE", Align::Left, 0),
        ("DESTINATION", Align::Left, 0),
        ("RX", Align::Right, 1),
        ("TX", Align::Right, 1),
        ("PACKETS", Align::Right, 7),
        ("VERDICT", Align::Left, 5),
        ("RULE", Align::Left, 8),
        ("LAST", Align::Left, WIDE),
        ("INTERFACE", Align::Left, WIDE),
        ("INITIATOR", Align::Left, WIDE),
        ("POLICY", Align::Right, WIDE),
        ("RECORDS", Align::Right, WIDE),
        ("FLOW", Align::Left, WIDE),
    ]);
    table.zone("START", &screen.clock.zone());
    for flow in flows {
        table.row(row(screen, flow));
    }
    table
}

fn row(screen: &Screen, flow: &Flow) -> Vec<Value> {
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::visible);
    let peer = flow.peer.as_ref();
    vec![
        state(flow),
        screen.clock.short(flow.first_seen).into(),
        text::duration(flow.last_seen.0 - flow.first_seen.0).into(),
        or_none(peer.map(|peer| &*peer.name)).into(),
        or_none(peer.and_then(|peer| peer.user.as_deref())).into(),
        text::protocol(flow.protocol_number, flow.overflow, flow.icmp).into(),
        text::endpoint(&flow.src).into(),
        text::endpoint(&flow.dst).into(),
        text::bytes(flow.counters.rx_bytes).into(),
        text::bytes(flow.counters.tx_bytes).into(),
        text::count(flow.counters.packets()).into(),
        verdict(flow.verdict, flow.enforced),
        or_none(flow.rule.as_deref()).into(),
        screen.clock.short(flow.last_seen).into(),
        text::visible(&flow.interface).into(),
        flow.initiator.word().into(),
        flow.policy_revision.to_string().into(),
        flow.records.to_string().into(),
        flow.flow_id.to_string().into(),
    ]
}

/// The mark of an open flow, or why it ended.
pub(super) fn state(flow: &Flow) -> Value {
    match (flow.state, flow.end_reason) {
        (FlowState::Open, _) => Value::toned("● open", Tone::Good),
        (FlowState::Closed, Some(reason)) => {
            Value::toned(format!("  {}", reason.word()), Tone::Dim)
        }
        (FlowState::Closed, None) => Value::toned("  -", Tone::Dim),
    }
}

/// A denied flow that passed says so.
pub(super) fn verdict(verdict: Verdict, enforced: bool) -> Value {
    match (verdict, enforced) {
        (Verdict::Allow, _) => Value::from("allow"),
        (Verdict::Deny, true) => Value::toned("deny", Tone::Bad),
        (Verdict::Deny, false) => Value::toned("deny (passed)", Tone::Bad),
    }
}

#[cfg(test)]
mod tests;
