//! `flowctl peer NAME`: one peer, when it was there and from where, and its books.

use super::{
    error::CtlError,
    flow::section,
    output::Screen,
    peers::{coverage, handshake},
    table::{Align, Table, Tone, Value},
    text,
};
use crate::wire::{Peer, PeerDetail, PeerSession};

/// Shows the sections, then the tables.
pub(super) fn show(screen: &mut Screen, detail: &PeerDetail) -> Result<(), CtlError> {
    section(screen, "Identity", identity(detail))?;
    for peer in &detail.interfaces {
        let title = format!("On {}", text::visible(&peer.interface));
        section(screen, &title, present(screen, peer))?;
    }
    if detail.interfaces.is_empty() {
        screen.line("It is on no interface now.\n")?;
    }
    let since = screen.clock.full(detail.since);
    screen.heading("Sessions")?;
    if detail.sessions.is_empty() {
        screen.line(&format!("  none since {since}"))?;
    } else {
        let table = sessions(screen, detail);
        screen.table(table)?;
    }
    screen.line("")?;
    screen.heading("Coverage")?;
    if detail.coverage.is_empty() {
        return screen.line(&format!("  no window is over since {since}"));
    }
    let table = windows(screen, detail);
    screen.table(table)
}

fn identity(detail: &PeerDetail) -> Vec<(&'static str, Value)> {
    let identity = &detail.identity;
    let or_none =
        |text: Option<&str>| -> Value { text.map_or_else(|| "-".to_owned(), text::visible).into() };
    let groups = identity.groups.join(", ");
    vec![
        ("Name", or_none(Some(&identity.name))),
        ("User", or_none(identity.user.as_deref())),
        ("Device", or_none(identity.device.as_deref())),
        ("Groups", or_none(Some(groups.as_str()).filter(|groups| !groups.is_empty()))),
        ("Public key", or_none(Some(&identity.public_key))),
    ]
}

fn present(screen: &Screen, peer: &Peer) -> Vec<(&'static str, Value)> {
    let endpoint = peer.identity.endpoint.map_or_else(|| "-".to_owned(), |end| end.to_string());
    let state = match peer.connected_since {
        Some(since) => {
            Value::toned(format!("connected since {}", screen.clock.full(since)), Tone::Good)
        }
        None => "not connected".into(),
    };
    let both = |rx: u64, tx: u64| -> Value {
        format!("{} received, {} sent", text::bytes(rx), text::bytes(tx)).into()
    };
    let (counters, wireguard) = (&peer.counters, &peer.wireguard);
    let mut lines = vec![
        ("State", state),
        ("Endpoint", endpoint.into()),
        ("Handshake", handshake(screen, peer)),
        ("Allowed IPs", peer.allowed_ips.join(" ").into()),
        ("Open flows", peer.open_flows.to_string().into()),
        ("flowd", both(counters.rx_bytes, counters.tx_bytes)),
        ("WireGuard", both(wireguard.rx_bytes, wireguard.tx_bytes)),
    ];
    let told = coverage(peer.coverage.as_ref());
    let since = peer.coverage.map(|coverage| screen.clock.full(coverage.since));
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    lines.push(("Coverage", Value { text: format!("{}{since}", told.text), tone: told.tone }));
    lines
}

fn sessions(screen: &Screen, detail: &PeerDetail) -> Table {
    let mut table = Table::new(&[
        ("CONNECTED", Align::Left, 0),
        ("DISCONNECTED", Align::Left, 0),
        ("ENDPOINT", Align::Left, 0),
        ("INTERFACE", Align::Left, 1),
    ]);
    table.zone("CONNECTED", &screen.clock.zone());
    for session in &detail.sessions {
        let PeerSession { interface, connected, disconnected, endpoints } = session;
        let connected = connected.map_or_else(|| "before".to_owned(), |at| screen.clock.short(at));
        let ended = match disconnected {
            Some(at) => screen.clock.short(*at).into(),
            None => Value::toned("-", Tone::Dim),
        };
        let first = endpoints.first().map_or_else(|| "-".to_owned(), |at| at.endpoint.to_string());
        let interface = text::visible(interface);
        table.row(vec![connected.into(), ended, first.into(), interface.into()]);
        for moved in endpoints.iter().skip(1) {
            let at = format!("  {} roamed to", screen.clock.short(moved.since));
            table.row(vec![at.into(), "".into(), moved.endpoint.to_string().into(), "".into()]);
        }
    }
    table
}

fn windows(screen: &Screen, detail: &PeerDetail) -> Table {
    let mut table = Table::new(&[
        ("FROM", Align::Left, 0),
        ("UNTIL", Align::Left, 0),
        ("RX", Align::Right, 0),
        ("TX", Align::Right, 0),
        ("WG-RX", Align::Right, 1),
        ("WG-TX", Align::Right, 1),
        ("COVERAGE", Align::Left, 0),
        ("EPOCH", Align::Right, 2),
        ("INTERFACE", Align::Left, 3),
    ]);
    table.zone("FROM", &screen.clock.zone());
    for window in &detail.coverage {
        let told = &window.coverage;
        table.row(vec![
            screen.clock.short(told.since).into(),
            screen.clock.short(told.until).into(),
            text::bytes(told.counters.rx_bytes).into(),
            text::bytes(told.counters.tx_bytes).into(),
            text::bytes(told.wireguard.rx_bytes).into(),
            text::bytes(told.wireguard.tx_bytes).into(),
            coverage(Some(told)),
            told.epoch.to_string().into(),
            text::visible(&window.interface).into(),
        ]);
    }
    table
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
