//! Records and flows as rows of text, with names that stay.

use super::{Change, Endpoint, Flow, FlowState, Gap, Peer, PeerEvent, Record};
use crate::flows::{Counters, Identity, Tally};

/// The columns of a record.
pub const CSV_COLUMNS: [&str; 43] = [
    "record_id",
    "flow_id",
    "gateway",
    "interface",
    "window_start",
    "window_end",
    "first_seen",
    "last_seen",
    "protocol",
    "protocol_number",
    "src_ip",
    "src_port",
    "src_peer",
    "src_resource",
    "dst_ip",
    "dst_port",
    "dst_peer",
    "dst_resource",
    "initiator",
    "icmp_type",
    "icmp_code",
    "peer_public_key",
    "peer_name",
    "peer_user",
    "peer_device",
    "peer_groups",
    "peer_endpoint",
    "verdict",
    "enforced",
    "rule",
    "policy_revision",
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "total_rx_packets",
    "total_rx_bytes",
    "total_tx_packets",
    "total_tx_bytes",
    "tcp_flags_rx",
    "tcp_flags_tx",
    "end_reason",
    "overflow",
];

/// The cells of a record, in the order of [`CSV_COLUMNS`].
pub fn csv_row(record: &Record) -> Vec<String> {
    let mut row = vec![
        or_empty(record.record_id),
        record.flow_id.to_string(),
        csv_text(&record.gateway),
        csv_text(&record.interface),
        record.window_start.to_string(),
        record.window_end.to_string(),
        record.first_seen.to_string(),
        record.last_seen.to_string(),
        record.protocol.clone(),
        record.protocol_number.to_string(),
    ];
    row.extend(end(&record.src));
    row.extend(end(&record.dst));
    row.push(record.initiator.word().to_owned());
    row.push(or_empty(record.icmp.map(|icmp| icmp.r#type)));
    row.push(or_empty(record.icmp.map(|icmp| icmp.code)));
    row.extend(peer(record.peer.as_ref()));
    row.extend([
        record.verdict.word().to_owned(),
        record.enforced.to_string(),
        record.rule.as_deref().map(csv_text).unwrap_or_default(),
        record.policy_revision.to_string(),
    ]);
    row.extend(counters(&record.counters));
    row.extend(counters(&record.total));
    row.extend([
        record.tcp_flags.rx.to_string(),
        record.tcp_flags.tx.to_string(),
        record.end_reason.map(|reason| reason.word().to_owned()).unwrap_or_default(),
        record.overflow.to_string(),
    ]);
    row
}

/// The columns of a flow.
pub const FLOW_CSV_COLUMNS: [&str; 42] = [
    "flow_id",
    "state",
    "gateway",
    "interface",
    "first_seen",
    "last_seen",
    "protocol",
    "protocol_number",
    "src_ip",
    "src_port",
    "src_peer",
    "src_resource",
    "dst_ip",
    "dst_port",
    "dst_peer",
    "dst_resource",
    "initiator",
    "icmp_type",
    "icmp_code",
    "peer_public_key",
    "peer_name",
    "peer_user",
    "peer_device",
    "peer_groups",
    "peer_endpoint",
    "verdict",
    "enforced",
    "rule",
    "policy_revision",
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "total_rx_packets",
    "total_rx_bytes",
    "total_tx_packets",
    "total_tx_bytes",
    "tcp_flags_rx",
    "tcp_flags_tx",
    "end_reason",
    "overflow",
    "records",
];

/// The cells of a flow, in the order of [`FLOW_CSV_COLUMNS`].
pub fn flow_csv_row(flow: &Flow) -> Vec<String> {
    let state = match flow.state {
        FlowState::Open => "open",
        FlowState::Closed => "closed",
    };
    let mut row = vec![
        flow.flow_id.to_string(),
        state.to_owned(),
        csv_text(&flow.gateway),
        csv_text(&flow.interface),
        flow.first_seen.to_string(),
        flow.last_seen.to_string(),
        flow.protocol.clone(),
        flow.protocol_number.to_string(),
    ];
    row.extend(end(&flow.src));
    row.extend(end(&flow.dst));
    row.push(flow.initiator.word().to_owned());
    row.push(or_empty(flow.icmp.map(|icmp| icmp.r#type)));
    row.push(or_empty(flow.icmp.map(|icmp| icmp.code)));
    row.extend(peer(flow.peer.as_ref()));
    row.extend([
        flow.verdict.word().to_owned(),
        flow.enforced.to_string(),
        flow.rule.as_deref().map(csv_text).unwrap_or_default(),
        flow.policy_revision.to_string(),
    ]);
    row.extend(counters(&flow.counters));
    row.extend(counters(&flow.total));
    row.extend([
        flow.tcp_flags.rx.to_string(),
        flow.tcp_flags.tx.to_string(),
        flow.end_reason.map(|reason| reason.word().to_owned()).unwrap_or_default(),
        flow.overflow.to_string(),
        flow.records.to_string(),
    ]);
    row
}

/// The columns of a peer.
pub const PEER_CSV_COLUMNS: [&str; 26] = [
    "public_key",
    "name",
    "user",
    "device",
    "groups",
    "endpoint",
    "interface",
    "allowed_ips",
    "latest_handshake",
    "open_flows",
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "wireguard_rx_bytes",
    "wireguard_tx_bytes",
    "connected_since",
    "coverage_since",
    "coverage_until",
    "coverage_epoch",
    "coverage_rx",
    "coverage_rx_off_bytes",
    "coverage_tx",
    "coverage_tx_off_bytes",
    "coverage_wireguard_rx_bytes",
    "coverage_wireguard_tx_bytes",
];

/// The cells of a peer, in the order of [`PEER_CSV_COLUMNS`].
pub fn peer_csv_row(one: &Peer) -> Vec<String> {
    let mut row = peer(Some(&one.identity)).to_vec();
    row.extend([
        csv_text(&one.interface),
        one.allowed_ips.join(" "),
        or_empty(one.latest_handshake),
        one.open_flows.to_string(),
    ]);
    row.extend(counters(&one.counters));
    row.extend([one.wireguard.rx_bytes.to_string(), one.wireguard.tx_bytes.to_string()]);
    row.push(or_empty(one.connected_since));
    row.extend(match &one.coverage {
        Some(coverage) => [
            coverage.since.to_string(),
            coverage.until.to_string(),
            coverage.epoch.to_string(),
            coverage.rx.state.word().to_owned(),
            coverage.rx.off_bytes.to_string(),
            coverage.tx.state.word().to_owned(),
            coverage.tx.off_bytes.to_string(),
            coverage.wireguard.rx_bytes.to_string(),
            coverage.wireguard.tx_bytes.to_string(),
        ],
        None => Default::default(),
    });
    row
}

/// The columns of a gap.
pub const GAP_CSV_COLUMNS: [&str; 14] = [
    "gap_id",
    "stage",
    "interface",
    "peer_public_key",
    "peer_name",
    "peer_user",
    "peer_device",
    "peer_groups",
    "peer_endpoint",
    "from",
    "to",
    "packets",
    "bytes",
    "detail",
];

/// The cells of a gap, in the order of [`GAP_CSV_COLUMNS`]; empty: all, open, or unknown.
pub fn gap_csv_row(gap: &Gap) -> Vec<String> {
    let mut row = vec![
        or_empty(gap.gap_id),
        gap.stage.word().to_owned(),
        gap.interface.as_deref().map(csv_text).unwrap_or_default(),
    ];
    row.extend(peer(gap.peer.as_ref()));
    row.extend([
        gap.from.to_string(),
        or_empty(gap.to),
        or_empty(gap.packets),
        or_empty(gap.bytes),
        csv_text(&gap.detail),
    ]);
    row
}

/// The columns of what happened to a peer.
pub const PEER_EVENT_CSV_COLUMNS: [&str; 6] =
    ["at", "kind", "interface", "endpoint", "was", "epoch"];

/// The cells of an event, in the order of [`PEER_EVENT_CSV_COLUMNS`].
pub fn peer_event_csv_row(event: &PeerEvent) -> Vec<String> {
    let PeerEvent { at, kind, interface, endpoint, was, epoch } = event;
    vec![
        at.to_string(),
        kind.word().to_owned(),
        csv_text(interface),
        or_empty(*endpoint),
        or_empty(*was),
        epoch.to_string(),
    ]
}

/// The columns of a change of verdict.
pub const CHANGE_CSV_COLUMNS: [&str; 8] =
    ["peer", "was", "was_rule", "would_be", "rule", "flows", "packets", "bytes"];

/// The cells of a change of verdict, in the order of [`CHANGE_CSV_COLUMNS`].
pub fn change_csv_row(change: &Change) -> Vec<String> {
    let Change { peer, was, was_rule, would_be, rule, traffic } = change;
    let Tally { flows, packets, bytes } = traffic;
    let text = |text: &Option<String>| text.as_deref().map(csv_text).unwrap_or_default();
    let mut row = vec![
        text(peer),
        was.word().to_owned(),
        text(was_rule),
        would_be.word().to_owned(),
        text(rule),
    ];
    row.extend([flows, packets, bytes].map(u64::to_string));
    row
}

fn end(end: &Endpoint) -> [String; 4] {
    let Endpoint { ip, port, peer, resource } = end;
    let name = |name: &Option<String>| name.as_deref().map(csv_text).unwrap_or_default();
    [or_empty(*ip), or_empty(*port), name(peer), name(resource)]
}

fn peer(peer: Option<&Identity>) -> [String; 6] {
    let Some(Identity { public_key, name, user, device, groups, endpoint }) = peer else {
        return Default::default();
    };
    let text = |text: &Option<String>| text.as_deref().map(csv_text).unwrap_or_default();
    [
        csv_text(public_key),
        csv_text(name),
        text(user),
        text(device),
        csv_text(&groups.join(" ")),
        or_empty(*endpoint),
    ]
}

pub(super) fn counters(counters: &Counters) -> [String; 4] {
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = counters;
    [rx_packets, rx_bytes, tx_packets, tx_bytes].map(u64::to_string)
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// What a spreadsheet may take for the start of a formula, also in full width.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// What begins another cell in the spreadsheets of some countries, or another line in all.
const BREAKS: [char; 4] = [';', '\t', '\r', '\n'];

/// Text from outside as a cell: a spreadsheet takes one that starts like a formula for a formula, so
/// it gets an apostrophe first; so does what would start one behind a break.
pub fn csv_text(text: &str) -> String {
    let mut cell = String::with_capacity(text.len() + 1);
    if text.starts_with(BREAKS) {
        cell.push('\'');
    }
    let mut is_first = true;
    for character in text.chars() {
        if is_first && FORMULA.contains(&character) {
            cell.push('\'');
        }
        cell.push(character);
        is_first = BREAKS.contains(&character);
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::csv_text;

    #[test]
    fn no_cell_is_a_formula() {
        for (text, cell) in [
            ("alice", "alice"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@sum", "'@sum"),
            ("\tx", "'\tx"),
            ("\n=1", "'\n'=1"),
            ("＝1", "'＝1"),
            ("a=b", "a=b"),
            ("alice;=cmd()", "alice;'=cmd()"),
            ("a;b", "a;b"),
            (";b", "';b"),
            ("\t=1", "'\t'=1"),
            ("a\n\tb", "a\n\tb"),
            ("a; =b", "a; =b"),
            ("", ""),
        ] {
            assert_eq!(csv_text(text), cell);
        }
    }
}
