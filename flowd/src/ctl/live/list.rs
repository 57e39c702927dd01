//! The rows: flows, or peers.

use ratatui::{
    style::{Modifier, Style as Paint},
    text::{Line, Span},
};

use super::{
    columns::{Column, cell, fit},
    model::{Model, Tab},
    rows::{Row, verdict},
    view::Style,
};
use crate::{
    ctl::{
        bars::bar,
        table::{Tone, Value},
        text,
    },
    flows::{Verdict, protocol_name},
    wire::{FlowRate, PeerRate, share},
};

/// Cells of a bar.
const BAR: usize = 10;

const FLOW_COLUMNS: [Column; 11] = [
    Column::text("PEER", 12, 24, 3),
    Column::text("PROTO", 6, 6, 5),
    Column::text("SOURCE", 15, 47, 4),
    Column::text("DESTINATION", 18, 47, 0),
    Column::number("RX/s", 7, 0),
    Column::number("TX/s", 7, 1),
    Column::number("PKT/s", 6, 8),
    Column::number("TOTAL", 7, 6),
    Column::text("VERDICT", 7, 7, 2),
    Column::text("RULE", 8, 16, 7),
    Column::number("AGE", 6, 9),
];

const PEER_COLUMNS: [Column; 9] = [
    Column::text("PEER", 12, 24, 0),
    Column::text("USER", 12, 28, 6),
    Column::text("IFACE", 6, 15, 5),
    Column::number("FLOWS", 6, 2),
    Column::number("DENIED", 6, 1),
    Column::number("RX/s", 7, 0),
    Column::number("TX/s", 7, 0),
    Column::number("PKT/s", 6, 3),
    Column::text("SHARE", BAR, BAR, 4),
];

/// A header and as many rows as there is room for.
pub(super) fn lines<'a>(
    model: &mut Model,
    style: &Style,
    width: usize,
    height: usize,
) -> Vec<Line<'a>> {
    let page = height.saturating_sub(1);
    model.fit(page);
    // A mark and a space come first.
    let cells = width.saturating_sub(2);
    let columns: &[Column] = match model.tab {
        Tab::Flows => &FLOW_COLUMNS,
        Tab::Peers => &PEER_COLUMNS,
    };
    let widths = fit(columns, cells);
    let titles: Vec<_> = widths
        .iter()
        .map(|(place, width)| cell(columns[*place].title, *width, columns[*place].align))
        .collect();
    let bold = Paint::default().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(format!("  {}", titles.join(" ")), bold)];
    if model.shown.is_empty() {
        lines.push(Line::styled(format!("  {}", nothing(model)), style.of(Tone::Dim)));
    }
    for place in model.offset..model.shown.len().min(model.offset + page) {
        let index = model.shown[place];
        let values = match model.tab {
            Tab::Flows => flow(&model.flows[index], model.head.now.0),
            Tab::Peers => peer(&model.peers[index], model),
        };
        let is_selected = model.selected.is_some() && place == model.cursor;
        let mut spans = vec![Span::raw(if is_selected { "> " } else { "  " })];
        for (at, (place, width)) in widths.iter().enumerate() {
            let Value { text, tone } = &values[*place];
            let space = if at == 0 { "" } else { " " };
            let text = format!("{space}{}", cell(text, *width, columns[*place].align));
            spans.push(Span::styled(text, style.of(*tone)));
        }
        let line = Line::from(spans);
        lines.push(if is_selected {
            line.patch_style(Paint::default().add_modifier(Modifier::REVERSED))
        } else {
            line
        });
    }
    lines.truncate(height);
    lines
}

fn nothing(model: &Model) -> &'static str {
    if model.head.title.is_empty() {
        return "Waiting for the daemon.";
    }
    let is_narrow = !model.text.is_empty() || model.only_denied || model.only_peer.is_some();
    match (model.tab, is_narrow) {
        (_, true) => "Nothing matches; Esc shows more.",
        (Tab::Flows, false) => "No flow is open.",
        (Tab::Peers, false) => "No peer has an open flow.",
    }
}

fn flow(row: &Row<FlowRate>, now_ms: i64) -> Vec<Value> {
    let record = &row.what.record;
    let peer = record.peer.as_ref().map_or_else(|| "-".to_owned(), |p| text::visible(&p.name));
    let protocol =
        if record.overflow { "-".to_owned() } else { protocol_name(record.protocol_number) };
    let tone = if record.verdict == Verdict::Deny { Tone::Bad } else { Tone::Plain };
    let [rx, tx, packets] = rates(row);
    vec![
        peer.into(),
        protocol.into(),
        text::endpoint(&record.src).into(),
        text::endpoint(&record.dst).into(),
        rx,
        tx,
        packets,
        text::bytes(record.total.bytes()).into(),
        Value::toned(verdict(record), tone),
        record.rule.as_deref().map_or_else(|| "-".to_owned(), text::visible).into(),
        text::duration(now_ms - record.first_seen.0).into(),
    ]
}

fn peer(row: &Row<PeerRate>, model: &Model) -> Vec<Value> {
    let PeerRate { interface, peer, flows, denied_flows, moved } = &row.what;
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::visible);
    let denied = if *denied_flows > 0 { Tone::Bad } else { Tone::Plain };
    let [rx, tx, packets] = rates(row);
    vec![
        or_none(peer.as_ref().map(|peer| &*peer.name)).into(),
        or_none(peer.as_ref().and_then(|peer| peer.user.as_deref())).into(),
        text::visible(interface).into(),
        text::count(*flows).into(),
        Value::toned(text::count(*denied_flows), denied),
        rx,
        tx,
        packets,
        bar(share(moved.bytes(), model.sums.moved_bytes), BAR).into(),
    ]
}

/// Bytes from and to the peer, and packets, in a second.
fn rates<T>(row: &Row<T>) -> [Value; 3] {
    let Some(rate) = row.rate else { return ["-", "-", "-"].map(Value::from) };
    let number = |is_some: bool, text: String| {
        if is_some { Value::from(text) } else { Value::toned(text, Tone::Dim) }
    };
    [
        number(rate.rx_bytes > 0, text::bytes(rate.rx_bytes)),
        number(rate.tx_bytes > 0, text::bytes(rate.tx_bytes)),
        number(rate.packets() > 0, text::count(rate.packets())),
    ]
}
