//! What operators see of flows, as text.

use std::sync::Arc;

use super::{FlowPage, Format, Screen, begin, lines, show};
use crate::{
    ctl::output::Sink,
    flows::{Counters, EndReason, Flow, Icmp, Identity, Initiator, Record, Tuple, Verdict, sample},
    wire::{self, FlowState, Timestamp},
};

const NOW: Timestamp = Timestamp(1_795_233_600_000);

fn record(protocol: u8, peer: &str, remote: &str, ports: (u16, u16)) -> Record {
    let total = Counters { rx_packets: 5, rx_bytes: 351, tx_packets: 30_000, tx_bytes: 41_300_000 };
    let mapped = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    Record {
        record_id: 1,
        interface: "wg0".into(),
        tuple: Tuple {
            protocol,
            peer_addr: mapped(peer),
            remote_addr: mapped(remote),
            peer_port: ports.0,
            remote_port: ports.1,
        },
        window_start_ms: NOW.0 - 5_000,
        window_end_ms: NOW.0,
        first_seen_ms: NOW.0 - 5_000,
        last_seen_ms: NOW.0 - 1_000,
        peer: Some(Arc::new(Identity {
            public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned(),
            name: "alice\x1b[31m".to_owned(),
            user: Some("alice@example.com".to_owned()),
            device: None,
            groups: Vec::new(),
            endpoint: None,
        })),
        counters: total,
        total,
        ..sample::record()
    }
}

fn page() -> FlowPage {
    let open = record(6, "10.8.0.2", "10.0.0.1", (40_000, 443));
    let mut closed = record(17, "fd00:8::2", "fd00::1", (5353, 53));
    closed.end_reason = Some(EndReason::Idle);
    closed.initiator = Initiator::Remote;
    closed.verdict = Verdict::Deny;
    closed.rule = Some("no-dns".into());
    let mut ping = record(1, "10.8.0.2", "10.0.0.1", (77, 0));
    ping.icmp = Some(Icmp { r#type: 8, code: 0 });
    let mut overflow = record(0, "::", "::", (0, 1));
    overflow.overflow = true;
    let flow = |record: Record, state| wire::Flow::new("gw", &Flow::new(record), state);
    FlowPage {
        flows: vec![
            flow(open, FlowState::Open),
            flow(closed, FlowState::Closed),
            flow(ping, FlowState::Open),
            flow(overflow, FlowState::Closed),
        ],
        next_cursor: None,
    }
}

fn shown(format: Format, page: &FlowPage, width: u16) -> String {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, width);
    begin(&mut screen, format).unwrap();
    if matches!(format, Format::Jsonl | Format::Csv) {
        lines(&mut screen, format, &page.flows).unwrap();
    }
    show(&mut screen, format, page).unwrap();
    sink.text()
}

#[test]
fn the_table_is_aligned_and_obeys_no_name() {
    let expected = "\
STATE   START (UTC)  DURATION  PEER           USER               PROTO      SOURCE          DESTINATION          RX       TX  PACKETS  VERDICT        RULE
● open  03:59:55         4.0s  alice\\x1b[31m  alice@example.com  tcp        10.8.0.2:40000  10.0.0.1:443      351 B  41.3 MB    30.0k  allow          -
  idle  03:59:55         4.0s  alice\\x1b[31m  alice@example.com  udp        [fd00::1]:53    [fd00:8::2]:5353  351 B  41.3 MB    30.0k  deny (passed)  no-dns
● open  03:59:55         4.0s  alice\\x1b[31m  alice@example.com  icmp echo  10.8.0.2        10.0.0.1          351 B  41.3 MB    30.0k  allow          -
  -     03:59:55         4.0s  alice\\x1b[31m  alice@example.com  -          (overflow)      (overflow)        351 B  41.3 MB    30.0k  allow          -
";
    assert_eq!(shown(Format::Table, &page(), 200), expected);
}

#[test]
fn eighty_columns_are_enough_for_what_matters() {
    let text = shown(Format::Table, &page(), 80);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for column in ["STATE", "PEER", "PROTO", "SOURCE", "DESTINATION"] {
        assert!(text.contains(column), "{column} in {text}");
    }
}

#[test]
fn rule_and_user_are_shown_where_there_is_room() {
    let shows = |width| {
        let text = shown(Format::Table, &page(), width);
        ["VERDICT", "RULE", "USER"].map(|column| text.contains(column))
    };
    assert_eq!(shows(160), [true, true, true]);
    assert_eq!(shows(150), [true, true, false]);
    assert_eq!(shows(130), [true, false, false]);
}

#[test]
fn a_wide_table_has_every_column_however_narrow_the_terminal() {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, 80);
    screen.widen();
    show(&mut screen, Format::Table, &page()).unwrap();
    let text = sink.text();
    let header: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header[header.len() - 7..],
        ["RULE", "LAST", "INTERFACE", "INITIATOR", "POLICY", "RECORDS", "FLOW"]
    );
    let first = text.lines().nth(1).unwrap();
    assert!(first.ends_with(&page().flows[0].flow_id.to_string()), "{first}");
}

#[test]
fn rows_have_the_columns_of_the_header() {
    let text = shown(Format::Csv, &page(), 80);
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let columns = csv.headers().unwrap().len();
    let rows: Vec<_> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.len() == columns));
    assert_eq!(&rows[0][1], "open");
    let lines = shown(Format::Jsonl, &page(), 80);
    let flows: Vec<wire::Flow> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(flows, page().flows);
    assert_eq!(
        serde_json::from_str::<FlowPage>(&shown(Format::Json, &page(), 80)).unwrap(),
        page()
    );
}

#[test]
fn nothing_is_said_in_words() {
    let none = FlowPage { flows: Vec::new(), next_cursor: None };
    assert_eq!(shown(Format::Table, &none, 80), "No flows match.\n");
}
