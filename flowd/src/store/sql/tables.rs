//! The tables: what they are called, what their columns mean, and what stands in them.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use super::cell::Cell;
use crate::{
    flows::{self, Gap, Identity, Record},
    wire::{Peer, Timestamp},
};

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
}

/// A column of a table whose rows are made of a `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<T: 'static> {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
    pub(super) value: fn(&T) -> Cell<'_>,
}

/// A column, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type: `INTEGER` or `TEXT`.
    pub kind: &'static str,
    /// What stands in it.
    pub about: &'static str,
}

/// Records, stored ones only.
pub(super) const RECORDS: Table = Table {
    name: "records",
    about: "what one flow did in one window, as stored; what open flows did since their last \
        record, of at most an active timeout, is not in it",
};
/// Gaps, as `/v1/gaps` has them.
pub(super) const GAPS: Table =
    Table { name: "gaps", about: "where something may have gone unrecorded" };
/// Peers, as `/v1/peers` has them.
pub(super) const PEERS: Table =
    Table { name: "peers", about: "the peers of the gateway's interfaces, as they are now" };

/// Every table with its columns.
pub fn tables() -> Vec<(Table, Vec<ColumnInfo>)> {
    fn told<T>(columns: &[Column<T>]) -> Vec<ColumnInfo> {
        let told = |column: &Column<T>| {
            let Column { name, kind, about, value: _ } = *column;
            ColumnInfo { name, kind, about }
        };
        columns.iter().map(told).collect()
    }
    vec![(RECORDS, told(RECORD_COLUMNS)), (GAPS, told(GAP_COLUMNS)), (PEERS, told(PEER_COLUMNS))]
}

/// The statement that makes a table of such columns.
pub(super) fn definition<T>(name: &str, columns: &[Column<T>]) -> String {
    let mut sql = format!("CREATE TABLE {name} (");
    for (index, Column { name, kind, .. }) in columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(sql, "{comma}\"{name}\" {kind}").expect("a string grows");
    }
    sql + ")"
}

/// A record, and the gateway that its flow's id is made of.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) record: Record,
    pub(super) gateway: Arc<str>,
}

const fn integer<T>(
    name: &'static str,
    about: &'static str,
    value: fn(&T) -> Cell<'_>,
) -> Column<T> {
    Column { name, kind: "INTEGER", about, value }
}

const fn text<T>(name: &'static str, about: &'static str, value: fn(&T) -> Cell<'_>) -> Column<T> {
    Column { name, kind: "TEXT", about, value }
}

/// As in CSV, with integers for times and truths.
pub(super) const RECORD_COLUMNS: &[Column<Named>] = &[
    integer("record_id", "1, 2, 3, … without a gap", |it| it.record.record_id.into()),
    text("flow_id", "the same for all records of a flow", |it| {
        let Record { interface, tuple, first_seen_ms, .. } = &it.record;
        Cell::text(flows::FlowId::new(&it.gateway, interface, tuple, *first_seen_ms))
    }),
    text("gateway", "id of the gateway", |it| (&*it.gateway).into()),
    text("interface", "name of the WireGuard interface", |it| (&*it.record.interface).into()),
    integer("window_start", "Unix milliseconds", |it| it.record.window_start_ms.into()),
    integer("window_end", "Unix milliseconds; narrows a query to its days", |it| {
        it.record.window_end_ms.into()
    }),
    integer("first_seen", "Unix milliseconds of the flow's first packet", |it| {
        it.record.first_seen_ms.into()
    }),
    integer("last_seen", "Unix milliseconds of the last packet so far", |it| {
        it.record.last_seen_ms.into()
    }),
    text("protocol", "tcp, udp, icmp, … or the number", |it| {
        Cell::Text(flows::protocol_name(it.record.tuple.protocol).into())
    }),
    integer("protocol_number", "IANA number", |it| i64::from(it.record.tuple.protocol).into()),
    text("src_ip", "who opened the flow; the peer's side where nobody knows", |it| {
        ips(it).map(|(src, _)| src).into()
    }),
    integer("src_port", "NULL for protocols without ports", |it| {
        ports(it).map(|(src, _)| src).into()
    }),
    text("src_peer", "name of the peer at this end", |it| peers(it).0.into()),
    text("src_resource", "name of the resource at this end", |it| resources(it).0.into()),
    text("dst_ip", "the other address", |it| ips(it).map(|(_, dst)| dst).into()),
    integer("dst_port", "NULL for protocols without ports", |it| {
        ports(it).map(|(_, dst)| dst).into()
    }),
    text("dst_peer", "name of the peer at this end", |it| peers(it).1.into()),
    text("dst_resource", "name of the resource at this end", |it| resources(it).1.into()),
    text("initiator", "peer, remote or unknown", |it| it.record.initiator.word().into()),
    integer("icmp_type", "of the first packet", |it| {
        it.record.icmp.map(|icmp| i64::from(icmp.r#type)).into()
    }),
    integer("icmp_code", "of the first packet", |it| {
        it.record.icmp.map(|icmp| i64::from(icmp.code)).into()
    }),
    text("peer_public_key", "whose leg of the tunnel it is", |it| {
        peer(it).map(|peer| &*peer.public_key).into()
    }),
    text("peer_name", "its name at that time", |it| peer(it).map(|peer| &*peer.name).into()),
    text("peer_user", "its user at that time", |it| {
        peer(it).and_then(|peer| peer.user.as_deref()).into()
    }),
    text("peer_device", "its device at that time", |it| {
        peer(it).and_then(|peer| peer.device.as_deref()).into()
    }),
    text("peer_groups", "its groups at that time, a JSON array", |it| {
        peer(it).map_or(Cell::Null, |peer| array(&peer.groups))
    }),
    text("peer_endpoint", "its address outside the tunnel", |it| {
        peer(it).and_then(|peer| peer.endpoint).map_or(Cell::Null, Cell::text)
    }),
    text("verdict", "allow or deny", |it| it.record.verdict.word().into()),
    integer("enforced", "1 where a denied packet was dropped", |it| it.record.enforced.into()),
    text("rule", "what decided; NULL: no rule did", |it| it.record.rule.as_deref().into()),
    integer("policy_revision", "of the policy that was in force", |it| {
        i64::from(it.record.policy_revision).into()
    }),
    integer("rx_packets", "from the peer, in this window", |it| {
        it.record.counters.rx_packets.into()
    }),
    integer("rx_bytes", "IP header included", |it| it.record.counters.rx_bytes.into()),
    integer("tx_packets", "to the peer, in this window", |it| it.record.counters.tx_packets.into()),
    integer("tx_bytes", "IP header included", |it| it.record.counters.tx_bytes.into()),
    integer("total_rx_packets", "since the flow's first packet", |it| {
        it.record.total.rx_packets.into()
    }),
    integer("total_rx_bytes", "since the flow's first packet", |it| {
        it.record.total.rx_bytes.into()
    }),
    integer("total_tx_packets", "since the flow's first packet", |it| {
        it.record.total.tx_packets.into()
    }),
    integer("total_tx_bytes", "since the flow's first packet", |it| {
        it.record.total.tx_bytes.into()
    }),
    integer("tcp_flags_rx", "as in the TCP header", |it| i64::from(it.record.tcp_flags.rx).into()),
    integer("tcp_flags_tx", "as in the TCP header", |it| i64::from(it.record.tcp_flags.tx).into()),
    text("end_reason", "fin, rst, idle, …; NULL while the flow lives", |it| {
        it.record.end_reason.map(|reason| reason.word()).into()
    }),
    integer("overflow", "1 for the sum of a peer's packets that are in no flow", |it| {
        it.record.overflow.into()
    }),
];

/// As in CSV; `opened` and `closed` are `from` and `to`, which are words of SQL.
pub(super) const GAP_COLUMNS: &[Column<Gap>] = &[
    integer("gap_id", "NULL while the store has not taken it", |gap| {
        (gap.gap_id != 0).then_some(gap.gap_id).into()
    }),
    text("stage", "where on the way of a packet", |gap| gap.stage.word().into()),
    text("interface", "NULL: every one", |gap| gap.interface.as_deref().into()),
    text("peer_public_key", "NULL: every peer", |gap| {
        gap.peer.as_ref().map(|peer| &*peer.public_key).into()
    }),
    text("peer_name", "NULL: every peer", |gap| gap.peer.as_ref().map(|peer| &*peer.name).into()),
    integer("opened", "Unix milliseconds", |gap| gap.opened_ms.into()),
    integer("closed", "Unix milliseconds; NULL while it lasts", |gap| gap.closed_ms.into()),
    integer("packets", "missing at most; NULL: nobody knows", |gap| gap.bound.packets.into()),
    integer("bytes", "missing at most; NULL: nobody knows", |gap| gap.bound.bytes.into()),
    text("detail", "what happened", |gap| (&*gap.detail).into()),
];

/// As in CSV, without the books.
pub(super) const PEER_COLUMNS: &[Column<Peer>] = &[
    text("public_key", "base64", |peer| (&*peer.identity.public_key).into()),
    text("name", "its name now", |peer| (&*peer.identity.name).into()),
    text("user", "its user now", |peer| peer.identity.user.as_deref().into()),
    text("device", "its device now", |peer| peer.identity.device.as_deref().into()),
    text("groups", "its groups now, a JSON array", |peer| array(&peer.identity.groups)),
    text("endpoint", "its address outside the tunnel", |peer| {
        peer.identity.endpoint.map_or(Cell::Null, Cell::text)
    }),
    text("interface", "the interface that has it", |peer| (&*peer.interface).into()),
    text("allowed_ips", "a JSON array of prefixes", |peer| array(&peer.allowed_ips)),
    integer("latest_handshake", "Unix milliseconds; NULL: never", |peer| ms(peer.latest_handshake)),
    integer("connected_since", "Unix milliseconds; NULL: it is not connected", |peer| {
        ms(peer.connected_since)
    }),
    integer("open_flows", "in the kernel's table now", |peer| peer.open_flows.into()),
    integer("rx_packets", "counted since flowd attached", |peer| peer.counters.rx_packets.into()),
    integer("rx_bytes", "counted since flowd attached", |peer| peer.counters.rx_bytes.into()),
    integer("tx_packets", "counted since flowd attached", |peer| peer.counters.tx_packets.into()),
    integer("tx_bytes", "counted since flowd attached", |peer| peer.counters.tx_bytes.into()),
    integer("wireguard_rx_bytes", "WireGuard's own counter", |peer| peer.wireguard.rx_bytes.into()),
    integer("wireguard_tx_bytes", "WireGuard's own counter", |peer| peer.wireguard.tx_bytes.into()),
];

fn ips(it: &Named) -> Option<(IpAddr, IpAddr)> {
    let Record { overflow, initiator, tuple, .. } = &it.record;
    (!overflow).then(|| initiator.first(tuple.peer_ip(), tuple.remote_ip()))
}

fn ports(it: &Named) -> Option<(i64, i64)> {
    let Record { overflow, initiator, tuple, .. } = &it.record;
    let ends = || initiator.first(tuple.peer_port.into(), tuple.remote_port.into());
    (!overflow && tuple.has_ports()).then(ends)
}

fn peers(it: &Named) -> (Option<&str>, Option<&str>) {
    let Record { initiator, peer, remote_peer, .. } = &it.record;
    let (src, dst) = initiator.first(peer, remote_peer);
    let [src, dst] = [src, dst].map(|peer| peer.as_ref().map(|peer| &*peer.name));
    (src, dst)
}

fn resources(it: &Named) -> (Option<&str>, Option<&str>) {
    let Record { initiator, peer_resource, remote_resource, .. } = &it.record;
    initiator.first(peer_resource.as_deref(), remote_resource.as_deref())
}

fn peer(it: &Named) -> Option<&Identity> {
    it.record.peer.as_deref()
}

fn array(words: &[String]) -> Cell<'static> {
    Cell::Text(serde_json::Value::from(words).to_string().into())
}

fn ms(time: Option<Timestamp>) -> Cell<'static> {
    time.map(|Timestamp(ms)| ms).into()
}

#[cfg(test)]
mod tests {
    use super::{Cell, Named, RECORD_COLUMNS};
    use crate::{
        flows::{EndReason, Icmp, Initiator, Record, sample},
        wire,
    };

    /// A cell as CSV has it.
    fn in_csv(name: &str, cell: &Cell<'_>) -> String {
        match (name, cell) {
            (_, Cell::Null) => String::new(),
            ("window_start" | "window_end" | "first_seen" | "last_seen", Cell::Integer(ms)) => {
                wire::Timestamp(*ms).to_string()
            }
            ("enforced" | "overflow", Cell::Integer(is)) => (*is == 1).to_string(),
            (_, Cell::Integer(number)) => number.to_string(),
            ("peer_groups", Cell::Text(array)) => {
                serde_json::from_str::<Vec<String>>(array).unwrap().join(" ")
            }
            (_, Cell::Text(text)) => text.clone().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_has_what_a_line_of_csv_has() {
        let pinged = Record {
            initiator: Initiator::Remote,
            icmp: Some(Icmp { r#type: 8, code: 1 }),
            end_reason: Some(EndReason::Idle),
            rule: Some("ping".into()),
            peer_resource: Some("branch".into()),
            enforced: true,
            ..sample::record()
        };
        let mut ping = pinged.clone();
        ping.tuple.protocol = 1;
        let nobody = Record { peer: None, ..sample::record() };
        let with_groups = Record {
            peer: sample::record().peer.map(|peer| {
                let mut peer = peer.as_ref().clone();
                peer.groups = vec!["ops".to_owned(), "all".to_owned()];
                peer.endpoint = "192.0.2.7:51820".parse().ok();
                peer.device = Some("laptop".to_owned());
                peer.into()
            }),
            ..sample::record()
        };
        for record in [sample::record(), pinged, ping, nobody, with_groups, sample::overflow()] {
            let row = wire::csv_row(&wire::Record::new("gw", &record));
            let named = Named { record, gateway: "gw".into() };
            let names: Vec<_> = RECORD_COLUMNS.iter().map(|column| column.name).collect();
            assert_eq!(names, wire::CSV_COLUMNS);
            for (column, expected) in RECORD_COLUMNS.iter().zip(row) {
                let cell = (column.value)(&named);
                assert_eq!(in_csv(column.name, &cell), expected, "{}", column.name);
            }
        }
    }
}
