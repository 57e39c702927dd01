//! `flowctl flow ID`: everything about one flow.

use super::{
    error::CtlError,
    flows::{state, verdict},
    output::Screen,
    table::{Align, Table, Tone, Value},
    text::{self, Clock},
};
use crate::wire::{Endpoint, Flow, FlowDetail};

/// Lines of a name and a value.
pub(super) type Lines = Vec<(&'static str, Value)>;

/// Shows the sections, then the records.
pub(super) fn show(screen: &mut Screen, detail: &FlowDetail) -> Result<(), CtlError> {
    for (title, lines) in sections(&screen.clock, detail) {
        section(screen, title, lines)?;
    }
    screen.heading("Records")?;
    let table = records(&screen.clock, detail);
    screen.table(table)
}

/// What is said of a flow, under its headings.
pub(super) fn sections(clock: &Clock, detail: &FlowDetail) -> [(&'static str, Lines); 5] {
    let flow = &detail.flow;
    let time = vec![
        ("First seen", clock.full(flow.first_seen).into()),
        ("Last seen", clock.full(flow.last_seen).into()),
        ("Duration", text::duration(flow.last_seen.0 - flow.first_seen.0).into()),
    ];
    [
        ("Connection", connection(flow)),
        ("Traffic", traffic(flow)),
        ("Time", time),
        ("Identity", identity(flow)),
        ("Identifiers", identifiers(detail)),
    ]
}

/// A heading, and lines of a name and a value.
pub(super) fn section(screen: &mut Screen, title: &str, lines: Lines) -> Result<(), CtlError> {
    screen.heading(title)?;
    for (name, value) in lines {
        let text = match (value.tone, screen.color) {
            (Tone::Good, true) => format!("\x1b[32m{}\x1b[0m", value.text),
            (Tone::Bad, true) => format!("\x1b[31m{}\x1b[0m", value.text),
            _ => value.text,
        };
        screen.line(&format!("  {name:<12} {text}"))?;
    }
    screen.line("")
}

fn connection(flow: &Flow) -> Lines {
    let state = state(flow);
    let mut lines = vec![
        ("State", Value::toned(state.text.trim(), state.tone)),
        ("Protocol", text::protocol(flow.protocol_number, flow.overflow, flow.icmp).into()),
        ("Source", end(&flow.src).into()),
        ("Destination", end(&flow.dst).into()),
        ("Initiator", flow.initiator.word().into()),
        ("Verdict", verdict(flow.verdict, flow.enforced)),
    ];
    if let Some(rule) = &flow.rule {
        let rule = format!("{} (policy {})", text::visible(rule), flow.policy_revision);
        lines.push(("Rule", rule.into()));
    }
    if flow.protocol_number == 6 && !flow.overflow {
        let (rx, tx) = (text::tcp_flags(flow.tcp_flags.rx), text::tcp_flags(flow.tcp_flags.tx));
        lines.push(("TCP flags", format!("rx {rx}, tx {tx}").into()));
    }
    lines
}

fn end(end: &Endpoint) -> String {
    let mut line = text::endpoint(end);
    for name in [&end.peer, &end.resource].into_iter().flatten() {
        line = format!("{line} ({})", text::visible(name));
    }
    line
}

fn traffic(flow: &Flow) -> Lines {
    let line = |packets: u64, bytes: u64| -> Value {
        format!("{} in {packets} packets ({bytes} bytes)", text::bytes(bytes)).into()
    };
    let total = &flow.total;
    vec![
        ("Received", line(total.rx_packets, total.rx_bytes)),
        ("Sent", line(total.tx_packets, total.tx_bytes)),
        ("Total", line(total.packets(), total.bytes())),
    ]
}

fn identity(flow: &Flow) -> Lines {
    let peer = flow.peer.as_ref();
    let or_none =
        |text: Option<&str>| -> Value { text.map_or_else(|| "-".to_owned(), text::visible).into() };
    let endpoint = peer.and_then(|peer| peer.endpoint).map(|endpoint| endpoint.to_string());
    vec![
        ("User", or_none(peer.and_then(|peer| peer.user.as_deref()))),
        ("Device", or_none(peer.and_then(|peer| peer.device.as_deref()))),
        ("Peer", or_none(peer.map(|peer| peer.name.as_str()))),
        (
            "Groups",
            or_none(peer.map(|peer| peer.groups.join(", ")).filter(|g| !g.is_empty()).as_deref()),
        ),
        ("Endpoint", or_none(endpoint.as_deref())),
        ("Server", or_none(Some(&flow.gateway))),
    ]
}

fn identifiers(detail: &FlowDetail) -> Lines {
    let flow = &detail.flow;
    let ids: Vec<u64> = detail.records.iter().filter_map(|record| record.record_id).collect();
    let ids = match (ids.first(), ids.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last} ({})", ids.len()),
        (Some(only), _) => only.to_string(),
        _ => "none yet".to_owned(),
    };
    let key = flow.peer.as_ref().map_or("-", |peer| peer.public_key.as_str());
    vec![
        ("Flow", flow.flow_id.to_string().into()),
        ("Interface", text::visible(&flow.interface).into()),
        ("Public key", text::visible(key).into()),
        ("Records", ids.into()),
    ]
}

/// Its records as a table.
pub(super) fn records(clock: &Clock, detail: &FlowDetail) -> Table {
    let mut table = Table::new(&[
        ("RECORD", Align::Right, 0),
        ("FROM", Align::Left, 0),
        ("UNTIL", Align::Left, 0),
        ("RX", Align::Right, 0),
        ("TX", Align::Right, 0),
        ("PACKETS", Align::Right, 1),
        ("END", Align::Left, 2),
    ]);
    table.zone("FROM", &clock.zone());
    for record in &detail.records {
        let id = record.record_id.map_or_else(|| "live".to_owned(), |id| id.to_string());
        table.row(vec![
            id.into(),
            clock.short(record.window_start).into(),
            clock.short(record.window_end).into(),
            text::bytes(record.counters.rx_bytes).into(),
            text::bytes(record.counters.tx_bytes).into(),
            text::count(record.counters.packets()).into(),
            record.end_reason.map_or("", |reason| reason.word()).into(),
        ]);
    }
    table
}
