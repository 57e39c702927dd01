//! Zeek's `conn.log`, as text with tabs and as JSON.
//!
//! - a line is a record: a flow that lasts has several, with the same `uid`
//! - flowd knows which TCP flags a side sent since the first packet, not in which order: each
//!   letter of `history` stands once, in the order of an undisturbed connection
//! - behind Zeek's own fields come those of flowd that Zeek has no place for

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Sent, record_uid, sent, tcp};
use crate::{flows::FlowId, wire::Record};

/// A column and its type.
const FIELDS: [(&str, &str); 30] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("ip_proto", "count"),
    ("flowd_record", "string"),
    ("flowd_interface", "string"),
    ("flowd_peer", "string"),
    ("flowd_user", "string"),
    ("flowd_verdict", "string"),
    ("flowd_enforced", "bool"),
    ("flowd_rule", "string"),
    ("flowd_end", "string"),
];

/// What stands before the first line.
pub(super) fn header() -> String {
    let names = FIELDS.map(|(name, _)| name).join("\t");
    let types = FIELDS.map(|(_, kind)| kind).join("\t");
    format!(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n\
         #fields\t{names}\n#types\t{types}\n"
    )
}

/// What stands behind the last line. Zeek writes the time there, which is no part of the records.
pub(super) const FOOTER: &str = "#close\n";

/// A value of a field.
enum Cell {
    Unset,
    Number(u64),
    /// In milliseconds; written in seconds.
    Seconds(i64),
    Bool(bool),
    Text(String),
}

impl Cell {
    fn number(value: Option<impl Into<u64>>) -> Self {
        value.map_or(Self::Unset, |value| Self::Number(value.into()))
    }

    fn text(value: Option<impl Into<String>>) -> Self {
        value.map_or(Self::Unset, |value| Self::Text(value.into()))
    }
}

/// One record as a line of text.
pub(super) fn write_tsv(record: &Record, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(256);
    for (index, cell) in cells(record).into_iter().enumerate() {
        if index > 0 {
            line.push('\t');
        }
        match cell {
            Cell::Unset => line.push('-'),
            Cell::Number(number) => write!(line, "{number}").expect("a string grows"),
            Cell::Seconds(ms) => seconds(ms, &mut line),
            Cell::Bool(flag) => line.push(if flag { 'T' } else { 'F' }),
            Cell::Text(text) => escape(&text, &mut line),
        }
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

/// One record as JSON; what is unset has no name.
pub(super) fn write_json(record: &Record, out: &mut Vec<u8>) {
    let mut object = Map::new();
    for ((name, _), cell) in FIELDS.into_iter().zip(cells(record)) {
        let value = match cell {
            Cell::Unset => continue,
            Cell::Number(number) => number.into(),
            Cell::Seconds(ms) => (ms as f64 / 1_000.0).into(),
            Cell::Bool(flag) => flag.into(),
            Cell::Text(text) => text.into(),
        };
        object.insert(name.to_owned(), value);
    }
    super::write_json(&Value::Object(object), out);
}

/// A record in the order of [`FIELDS`].
fn cells(record: &Record) -> [Cell; FIELDS.len()] {
    let (orig, resp) = sent(record);
    let peer = record.peer.as_ref();
    let icmp = |half: Option<u8>| half.map(u16::from);
    let (orig_port, resp_port) = match record.icmp {
        // Zeek has the type and the code where others have ports.
        Some(kind) => (icmp(Some(kind.r#type)), icmp(Some(kind.code))),
        None => {
            let port = |port: Option<u16>| port.or(record.src.ip.map(|_| 0));
            (port(record.src.port), port(record.dst.port))
        }
    };
    let proto = match record.protocol_number {
        1 | 58 => "icmp",
        tcp::NUMBER => "tcp",
        17 => "udp",
        _ => "unknown_transport",
    };
    let history = history(record);
    [
        Cell::Seconds(record.window_start.0),
        Cell::Text(uid(record.flow_id)),
        Cell::text(record.src.ip.map(|ip| ip.to_string())),
        Cell::number(orig_port),
        Cell::text(record.dst.ip.map(|ip| ip.to_string())),
        Cell::number(resp_port),
        Cell::Text(proto.to_owned()),
        Cell::Unset,
        Cell::Seconds((record.last_seen.0 - record.window_start.0).max(0)),
        // Payload alone is not counted.
        Cell::Unset,
        Cell::Unset,
        Cell::Text(conn_state(record, orig, resp).to_owned()),
        Cell::Unset,
        Cell::Unset,
        Cell::Number(0),
        Cell::text(Some(history).filter(|history| !history.is_empty())),
        Cell::Number(orig.packets),
        Cell::Number(orig.bytes),
        Cell::Number(resp.packets),
        Cell::Number(resp.bytes),
        Cell::Unset,
        Cell::number((!record.overflow).then_some(record.protocol_number)),
        Cell::Text(record_uid(record)),
        Cell::Text(record.interface.clone()),
        Cell::text(peer.map(|peer| peer.name.as_str())),
        Cell::text(peer.and_then(|peer| peer.user.as_deref())),
        Cell::Text(record.verdict.word().to_owned()),
        Cell::Bool(record.enforced),
        Cell::text(record.rule.as_deref()),
        Cell::text(record.end_reason.map(|reason| reason.word())),
    ]
}

/// A name of a flow as Zeek writes one: a C, then letters and digits.
fn uid(flow_id: FlowId) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = flow_id.0.as_u128();
    let mut uid = "C".to_owned();
    while rest > 0 {
        uid.push(char::from(DIGITS[(rest % 62) as usize]));
        rest /= 62;
    }
    uid
}

/// The state of a connection, from the flags that both sides have sent so far.
fn conn_state(record: &Record, orig: Sent, resp: Sent) -> &'static str {
    match record.protocol_number {
        17 => match packets_so_far(record) {
            (0, 0) => "OTH",
            (_, 0) => "S0",
            (0, _) => "SHR",
            (_, _) => "SF",
        },
        tcp::NUMBER => {
            let (o, r) = (orig.tcp_flags, resp.tcp_flags);
            let has = |flags: u8, flag: u8| flags & flag != 0;
            let both = |flag: u8| has(o, flag) && has(r, flag);
            let syn = (has(o, tcp::SYN), has(r, tcp::SYN));
            match syn {
                (false, false) => "OTH",
                (true, false) if has(r, tcp::RST) => "REJ",
                (false, true) if has(r, tcp::RST) => "RSTRH",
                _ if has(r, tcp::RST) => "RSTR",
                (true, false) if has(o, tcp::RST) && r == 0 => "RSTOS0",
                (true, true) if has(o, tcp::RST) => "RSTO",
                _ if has(o, tcp::RST) => "OTH",
                (true, true) if both(tcp::FIN) => "SF",
                (true, true) if has(o, tcp::FIN) => "S2",
                (true, true) if has(r, tcp::FIN) => "S3",
                (true, true) => "S1",
                (true, false) if r == 0 => {
                    if has(o, tcp::FIN) {
                        "SH"
                    } else {
                        "S0"
                    }
                }
                (false, true) if has(r, tcp::FIN) => "SHR",
                _ => "OTH",
            }
        }
        _ => "OTH",
    }
}

/// What each side has sent so far, a letter each: capitals are the originator's.
pub(super) fn history(record: &Record) -> String {
    let (orig, resp) = sent(record);
    let mut history = String::new();
    match record.protocol_number {
        tcp::NUMBER => {
            let (o, r) = (orig.tcp_flags, resp.tcp_flags);
            let syn_ack = |flags: u8| flags & tcp::SYN != 0 && flags & tcp::ACK != 0;
            // The SYN of who answers carries an ACK.
            let letters = [
                (o & tcp::SYN != 0, 'S'),
                (r & tcp::SYN != 0 && !syn_ack(r), 's'),
                (syn_ack(r), 'h'),
                (o & tcp::ACK != 0, 'A'),
                (o & tcp::PSH != 0, 'D'),
                (r & tcp::ACK != 0 && r & tcp::SYN == 0, 'a'),
                (r & tcp::PSH != 0, 'd'),
                (o & tcp::FIN != 0, 'F'),
                (r & tcp::FIN != 0, 'f'),
                (o & tcp::RST != 0, 'R'),
                (r & tcp::RST != 0, 'r'),
            ];
            history.extend(letters.into_iter().filter(|(seen, _)| *seen).map(|(_, letter)| letter));
        }
        17 => {
            let (source, destination) = packets_so_far(record);
            history.extend((source > 0).then_some('D'));
            history.extend((destination > 0).then_some('d'));
        }
        _ => {}
    }
    history
}

/// Packets that the source has sent since the first, and those of the destination.
fn packets_so_far(record: &Record) -> (u64, u64) {
    record.initiator.first(record.total.rx_packets, record.total.tx_packets)
}

/// Milliseconds as Zeek writes a time: seconds with six digits behind the point.
fn seconds(ms: i64, line: &mut String) {
    let (whole, rest) = (ms.div_euclid(1_000), ms.rem_euclid(1_000));
    write!(line, "{whole}.{rest:03}000").expect("a string grows");
}

/// Text as one field, as Zeek escapes it: bytes in hexadecimal.
fn escape(text: &str, line: &mut String) {
    match text {
        "" => line.push_str("(empty)"),
        "-" => line.push_str("\\x2d"),
        "(empty)" => line.push_str("\\x28empty)"),
        text => {
            for letter in text.chars() {
                match letter {
                    '\\' => line.push_str("\\\\"),
                    odd if odd.is_ascii_control() => {
                        write!(line, "\\x{:02x}", u32::from(odd)).expect("a string grows");
                    }
                    plain => line.push(plain),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{FIELDS, escape, write_json, write_tsv};
    use crate::{
        export::sample,
        flows::{Counters, Initiator, TcpFlags},
        wire::Record,
    };

    fn line(record: &Record) -> Vec<String> {
        let mut out = Vec::new();
        write_tsv(record, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.strip_suffix('\n').unwrap().split('\t').map(str::to_owned).collect()
    }

    fn field(record: &Record, name: &str) -> String {
        let at = FIELDS.iter().position(|(known, _)| *known == name).unwrap();
        line(record)[at].clone()
    }

    #[test]
    fn a_connection_is_a_line_with_every_field() {
        let expected = [
            "1795233600.000000",
            "",
            "10.8.0.2",
            "40000",
            "10.20.0.2",
            "443",
            "tcp",
            "-",
            "1.250000",
            "-",
            "-",
            "SF",
            "-",
            "-",
            "0",
            "ShADdFf",
            "6",
            "634",
            "5",
            "5800",
            "-",
            "6",
            "gw:7",
            "wg0",
            "alice",
            "alice@example.com",
            "allow",
            "F",
            "web",
            "fin",
        ];
        let mut line = line(&sample::tcp());
        let uid = std::mem::take(&mut line[1]);
        assert_eq!(line, expected);
        assert!(uid.starts_with('C') && uid.len() > 17, "{uid}");
        assert!(uid.chars().all(|letter| letter.is_ascii_alphanumeric()), "{uid}");
    }

    #[test]
    fn states_and_histories_follow_from_the_flags() {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        const FIN: u8 = 0x01;
        const RST: u8 = 0x04;
        const PSH: u8 = 0x08;
        let cases = [
            // originator, responder, state, history
            (SYN, 0, "S0", "S"),
            (SYN | ACK, SYN | ACK, "S1", "ShA"),
            (SYN | ACK | PSH | FIN, SYN | ACK | PSH | FIN, "SF", "ShADdFf"),
            (SYN, RST | ACK, "REJ", "Sar"),
            (SYN | ACK | FIN, SYN | ACK, "S2", "ShAF"),
            (SYN | ACK, SYN | ACK | FIN, "S3", "ShAf"),
            (SYN | ACK | RST, SYN | ACK, "RSTO", "ShAR"),
            (SYN | ACK, SYN | ACK | RST, "RSTR", "ShAr"),
            (SYN | RST, 0, "RSTOS0", "SR"),
            (0, SYN | ACK | RST, "RSTRH", "hr"),
            (SYN | FIN, 0, "SH", "SF"),
            (0, SYN | ACK | FIN, "SHR", "hf"),
            (ACK | PSH, ACK, "OTH", "ADa"),
            (ACK | FIN, ACK | FIN, "OTH", "AaFf"),
            (0, 0, "OTH", "-"),
        ];
        for (rx, tx, state, history) in cases {
            let record = Record { tcp_flags: TcpFlags { rx, tx }, ..sample::tcp() };
            assert_eq!(field(&record, "conn_state"), state, "{rx:x} {tx:x}");
            assert_eq!(field(&record, "history"), history, "{rx:x} {tx:x}");
            // The same from the other end.
            let flipped = Record {
                initiator: Initiator::Remote,
                tcp_flags: TcpFlags { rx: tx, tx: rx },
                ..sample::tcp()
            };
            assert_eq!(field(&flipped, "conn_state"), state, "{rx:x} {tx:x}");
        }
    }

    #[test]
    fn datagrams_have_the_state_of_who_has_sent() {
        let cases = [(1, 1, "SF", "Dd"), (1, 0, "S0", "D"), (0, 1, "SHR", "d")];
        for (tx_packets, rx_packets, state, history) in cases {
            let total = Counters { rx_packets, tx_packets, ..Counters::default() };
            // Quiet in this window: the state is of the flow.
            let counters = Counters::default();
            let record = Record { total, counters, ..sample::udp_v6_from_remote() };
            assert_eq!(field(&record, "conn_state"), state);
            assert_eq!(field(&record, "history"), history);
        }
    }

    #[test]
    fn what_zeek_has_otherwise() {
        let icmp = sample::icmp();
        assert_eq!(
            (field(&icmp, "id.orig_p"), field(&icmp, "id.resp_p")),
            ("8".into(), "0".into())
        );
        assert_eq!(field(&icmp, "conn_state"), "OTH");
        let gre = sample::no_peer();
        assert_eq!(field(&gre, "proto"), "unknown_transport");
        assert_eq!((field(&gre, "ip_proto"), field(&gre, "id.orig_p")), ("47".into(), "0".into()));
        assert_eq!(field(&gre, "flowd_peer"), "-");
        let overflow = sample::overflow();
        for name in ["id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "ip_proto", "history"] {
            assert_eq!(field(&overflow, name), "-", "{name}");
        }
        assert_eq!(field(&overflow, "orig_ip_bytes"), "1200");
    }

    #[test]
    fn text_is_one_field_whatever_it_is() {
        let cases = [
            ("plain é", "plain é"),
            ("a\tb\nc", "a\\x09b\\x0ac"),
            ("back\\slash", "back\\\\slash"),
            ("-", "\\x2d"),
            ("", "(empty)"),
            ("(empty)", "\\x28empty)"),
        ];
        for (text, expected) in cases {
            let mut escaped = String::new();
            escape(text, &mut escaped);
            assert_eq!(escaped, expected);
        }
        for (what, record) in sample::all() {
            assert_eq!(line(&record).len(), FIELDS.len(), "{what}");
        }
    }

    #[test]
    fn json_has_the_same_values() {
        for (what, record) in sample::all() {
            let mut out = Vec::new();
            write_json(&record, &mut out);
            let object: Value = serde_json::from_slice(&out).unwrap();
            for ((name, kind), cell) in FIELDS.iter().zip(line(&record)) {
                let value = object.get(*name);
                match (*kind, cell.as_str()) {
                    (_, "-") => assert_eq!(value, None, "{what}: {name}"),
                    ("count" | "port", cell) => {
                        assert_eq!(value.and_then(Value::as_u64), cell.parse().ok(), "{name}");
                    }
                    ("time" | "interval", cell) => {
                        assert_eq!(value.and_then(Value::as_f64), cell.parse().ok(), "{name}");
                    }
                    ("bool", cell) => {
                        assert_eq!(value.and_then(Value::as_bool), Some(cell == "T"), "{name}");
                    }
                    _ => assert!(value.is_some_and(Value::is_string), "{what}: {name}"),
                }
            }
        }
    }
}
