//! `flowctl peers`: who is there.

use super::{
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value},
    text,
};
use crate::wire::{self, BalanceState, Coverage, Peer, PeerList};

/// A handshake older than this means that the session is over: WireGuard's REJECT_AFTER_TIME.
const SESSION_MS: i64 = 180_000;

/// Shows the peers in the wanted form.
pub(super) fn run(screen: &mut Screen, format: Format, list: &PeerList) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, list)?,
        Format::Json => screen.json(list)?,
        Format::Jsonl => {
            for peer in &list.peers {
                screen.json_line(peer)?;
            }
        }
        Format::Csv => {
            screen.csv(&wire::PEER_CSV_COLUMNS, list.peers.iter().map(wire::peer_csv_row))?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, list: &PeerList) -> Result<(), CtlError> {
    if list.peers.is_empty() {
        return screen.line("No peers.");
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left, 0),
        ("USER", Align::Left, 4),
        ("INTERFACE", Align::Left, 2),
        ("ENDPOINT", Align::Left, 5),
        ("ALLOWED-IPS", Align::Left, 3),
        ("HANDSHAKE", Align::Right, 0),
        ("OPEN", Align::Right, 1),
        ("RX", Align::Right, 0),
        ("TX", Align::Right, 0),
        ("WG-RX", Align::Right, 6),
        ("WG-TX", Align::Right, 6),
        ("COVERAGE", Align::Left, 0),
    ]);
    for peer in &list.peers {
        table.row(row(screen, peer));
    }
    screen.table(table)
}

fn row(screen: &Screen, peer: &Peer) -> Vec<Value> {
    let identity = &peer.identity;
    vec![
        text::visible(&identity.name).into(),
        identity.user.as_deref().map_or_else(|| "-".to_owned(), text::visible).into(),
        text::visible(&peer.interface).into(),
        identity.endpoint.map_or_else(|| "-".to_owned(), |end| end.to_string()).into(),
        peer.allowed_ips.join(" ").into(),
        handshake(screen, peer),
        peer.open_flows.to_string().into(),
        text::bytes(peer.counters.rx_bytes).into(),
        text::bytes(peer.counters.tx_bytes).into(),
        text::bytes(peer.wireguard.rx_bytes).into(),
        text::bytes(peer.wireguard.tx_bytes).into(),
        coverage(peer.coverage.as_ref()),
    ]
}

/// How long ago the last handshake was.
pub(super) fn handshake(screen: &Screen, peer: &Peer) -> Value {
    match peer.latest_handshake {
        None => Value::toned("never", Tone::Dim),
        Some(time) => {
            let age_ms = screen.clock.now.0 - time.0;
            let tone = if age_ms < SESSION_MS { Tone::Good } else { Tone::Dim };
            Value::toned(format!("{} ago", text::duration(age_ms.max(0) / 1_000 * 1_000)), tone)
        }
    }
}

/// Whether the flows explain what WireGuard counted; if not, which direction is off by how much.
pub(super) fn coverage(coverage: Option<&Coverage>) -> Value {
    let Some(Coverage { rx, tx, .. }) = coverage else {
        return Value::toned("-", Tone::Dim);
    };
    let off: Vec<String> = [("rx", rx), ("tx", tx)]
        .into_iter()
        .filter(|(_, balance)| balance.off_bytes != 0)
        .map(|(name, balance)| {
            let sign = if balance.off_bytes > 0 { '+' } else { '-' };
            format!("{name} {sign}{}", text::bytes(balance.off_bytes.unsigned_abs()))
        })
        .collect();
    if off.is_empty() {
        return Value::toned("balanced", Tone::Good);
    }
    let is_over = rx.state == BalanceState::Over || tx.state == BalanceState::Over;
    Value::toned(off.join(", "), if is_over { Tone::Bad } else { Tone::Dim })
}
