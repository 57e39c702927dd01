//! AWS VPC flow logs, version 5: a line a direction that had packets, and one a gap.

use std::{fmt::Write as _, net::IpAddr};

use super::{Sent, ip_version, peer_is_source, sent, tcp};
use crate::{
    flows::{Stage, Verdict},
    wire::{Endpoint, Gap, Record, Timestamp},
};

/// The fields of versions 2 to 5, in the order of AWS's table.
pub(super) const FIELDS: [&str; 29] = [
    "version",
    "account-id",
    "interface-id",
    "srcaddr",
    "dstaddr",
    "srcport",
    "dstport",
    "protocol",
    "packets",
    "bytes",
    "start",
    "end",
    "action",
    "log-status",
    "vpc-id",
    "subnet-id",
    "instance-id",
    "tcp-flags",
    "type",
    "pkt-srcaddr",
    "pkt-dstaddr",
    "region",
    "az-id",
    "sublocation-type",
    "sublocation-id",
    "pkt-src-aws-service",
    "pkt-dst-aws-service",
    "flow-direction",
    "traffic-path",
];

/// The first line, as in the files that AWS puts into S3.
pub(super) fn header() -> String {
    format!("{}\n", FIELDS.join(" "))
}

/// What a line says; the other fields of AWS have no counterpart.
#[derive(Default)]
struct Line<'a> {
    interface: Option<&'a str>,
    gateway: Option<&'a str>,
    ends: Option<(&'a Endpoint, &'a Endpoint)>,
    protocol: Option<u8>,
    counts: Option<(u64, u64)>,
    start: Timestamp,
    end: Timestamp,
    action: Option<&'a str>,
    status: &'a str,
    tcp_flags: Option<u8>,
    version: Option<u8>,
    direction: Option<&'a str>,
}

/// One record: what the source sent, and what the destination did.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let (from_src, from_dst) = sent(record);
    let (src, dst) = (&record.src, &record.dst);
    let (forth, back) =
        if peer_is_source(record) { ("ingress", "egress") } else { ("egress", "ingress") };
    for (sent, ends, direction, answers) in
        [(from_src, (src, dst), forth, false), (from_dst, (dst, src), back, true)]
    {
        if sent.packets == 0 {
            continue;
        }
        let line = Line {
            interface: Some(&record.interface),
            gateway: Some(&record.gateway),
            ends: Some(ends),
            protocol: (!record.overflow).then_some(record.protocol_number),
            counts: Some((sent.packets, sent.bytes)),
            start: record.window_start,
            end: record.window_end,
            action: Some(action(record)),
            status: if record.overflow { "SKIPDATA" } else { "OK" },
            tcp_flags: (!record.overflow).then(|| tcp_flags(record, sent, answers)),
            version: ip_version(record),
            direction: Some(direction),
        };
        line.write(out);
    }
}

/// A gap that may hide packets, or in which there was no interface, cut to a range.
pub(super) fn write_gap(gap: &Gap, since: Option<Timestamp>, until: Timestamp, out: &mut Vec<u8>) {
    let nothing_lost = gap.packets == Some(0) && gap.bytes.is_none_or(|bytes| bytes == 0);
    let is_over = |since: Timestamp| gap.to.is_some_and(|to| to <= since);
    if since.is_some_and(is_over) {
        return;
    }
    let status = match gap.stage {
        Stage::Interface => "NODATA",
        _ if nothing_lost => return,
        _ => "SKIPDATA",
    };
    let line = Line {
        interface: gap.interface.as_deref(),
        start: since.map_or(gap.from, |since| since.max(gap.from)),
        end: gap.to.unwrap_or(until).min(until),
        status,
        ..Line::default()
    };
    line.write(out);
}

/// What happened to the packets: a policy that is only observed rejects none.
fn action(record: &Record) -> &'static str {
    match (record.verdict, record.enforced) {
        (Verdict::Deny, true) => "REJECT",
        (Verdict::Deny, false) | (Verdict::Allow, _) => "ACCEPT",
    }
}

/// FIN, SYN and RST, and the ACK of a SYN-ACK: AWS reports no others.
fn tcp_flags(record: &Record, sent: Sent, answers: bool) -> u8 {
    if record.protocol_number != tcp::NUMBER {
        return 0;
    }
    let flags = sent.tcp_flags & (tcp::FIN | tcp::SYN | tcp::RST);
    let acknowledges = answers && flags & tcp::SYN != 0;
    if acknowledges { flags | sent.tcp_flags & tcp::ACK } else { flags }
}

impl Line<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { interface, gateway, ends, protocol, counts, start, end, .. } = self;
        let Self { action, status, tcp_flags, version, direction, .. } = self;
        let (src, dst) = (ends.map(|ends| ends.0), ends.map(|ends| ends.1));
        let ip = |end: Option<&Endpoint>| end.and_then(|end| end.ip);
        let port = |end: Option<&Endpoint>| {
            // Where the protocol has none, AWS writes 0.
            end.and_then(|end| end.ip.map(|_: IpAddr| end.port.unwrap_or(0)))
        };
        let mut line = String::with_capacity(192);
        for (index, name) in FIELDS.iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            match *name {
                "version" => line.push('5'),
                "interface-id" => word(*interface, &mut line),
                "srcaddr" | "pkt-srcaddr" => or_dash(ip(src), &mut line),
                "dstaddr" | "pkt-dstaddr" => or_dash(ip(dst), &mut line),
                "srcport" => or_dash(port(src), &mut line),
                "dstport" => or_dash(port(dst), &mut line),
                "protocol" => or_dash(*protocol, &mut line),
                "packets" => or_dash(counts.map(|counts| counts.0), &mut line),
                "bytes" => or_dash(counts.map(|counts| counts.1), &mut line),
                "start" => or_dash(Some(start.0.div_euclid(1_000)), &mut line),
                "end" => or_dash(Some(end.0.div_euclid(1_000)), &mut line),
                "action" => or_dash(*action, &mut line),
                "log-status" => line.push_str(status),
                "instance-id" => word(*gateway, &mut line),
                "tcp-flags" => or_dash(*tcp_flags, &mut line),
                "type" => or_dash(version.map(|version| format!("IPv{version}")), &mut line),
                "flow-direction" => or_dash(*direction, &mut line),
                _ => line.push('-'),
            }
        }
        line.push('\n');
        out.extend_from_slice(line.as_bytes());
    }
}

fn or_dash(value: Option<impl std::fmt::Display>, line: &mut String) {
    match value {
        Some(value) => write!(line, "{value}").expect("a string grows"),
        None => line.push('-'),
    }
}

/// A name as one field: spaces part the fields, and there is no way to escape them.
fn word(name: Option<&str>, line: &mut String) {
    match name {
        None | Some("") => line.push('-'),
        Some(name) => {
            let is_odd = |letter: char| letter.is_whitespace() || letter.is_control();
            line.extend(name.chars().map(|letter| if is_odd(letter) { '_' } else { letter }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIELDS, write, write_gap};
    use crate::{
        export::sample,
        flows::{Counters, Stage, TcpFlags},
        wire::{Gap, Record, Timestamp},
    };

    fn lines(record: &Record) -> Vec<String> {
        let mut out = Vec::new();
        write(record, &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_direction_is_a_line() {
        let expected = [
            "5 - wg0 10.8.0.2 10.20.0.2 40000 443 6 6 634 1795233600 1795233601 ACCEPT OK - - gw \
             3 IPv4 10.8.0.2 10.20.0.2 - - - - - - ingress -",
            "5 - wg0 10.20.0.2 10.8.0.2 443 40000 6 5 5800 1795233600 1795233601 ACCEPT OK - - gw \
             19 IPv4 10.20.0.2 10.8.0.2 - - - - - - egress -",
        ];
        assert_eq!(lines(&sample::tcp()), expected);
    }

    #[test]
    fn directions_are_of_the_tunnel_whoever_opened_the_flow() {
        let lines = lines(&sample::udp_v6_from_remote());
        // The source is the remote end: the gateway sends to the peer what it sent.
        let expected = "5 - wg0 2001:db8::53 fd08::2 53 5353 17 5 5800 1795233600 1795233601 \
             ACCEPT OK - - gw 0 IPv6 2001:db8::53 fd08::2 - - - - - - egress -";
        assert_eq!(lines[0], expected);
        assert!(lines[1].ends_with("ingress -"), "{}", lines[1]);
    }

    #[test]
    fn the_action_is_what_happened_and_a_silent_direction_is_no_line() {
        let [only] = &lines(&sample::denied())[..] else { panic!("one direction") };
        assert!(only.contains(" REJECT OK ") && only.contains(" gw 2 IPv4 "), "{only}");
        let observed = lines(&sample::denied_and_observed());
        assert!(observed.iter().all(|line| line.contains(" ACCEPT OK ")), "{observed:?}");
        let nothing = Record { counters: Counters::default(), ..sample::tcp() };
        assert!(lines(&nothing).is_empty());
    }

    #[test]
    fn ports_that_are_none_are_zero_and_overflow_is_skipped_data() {
        assert!(lines(&sample::icmp())[0].starts_with("5 - wg0 10.8.0.2 10.8.0.3 0 0 1 6 634 "));
        let expected = "5 - wg0 - - - - - 20 1200 1795233600 1795233601 ACCEPT SKIPDATA - - gw - \
             - - - - - - - - - ingress -";
        assert_eq!(lines(&sample::overflow())[0], expected);
    }

    #[test]
    fn flags_are_those_that_aws_reports() {
        let cases = [
            // of the source, of the destination, in the lines
            (0x1b, 0x1b, "3", "19"),
            (0x02, 0x14, "2", "4"),
            (0x18, 0x10, "0", "0"),
            (0x16, 0x12, "6", "18"),
        ];
        for (rx, tx, forth, back) in cases {
            let record = Record { tcp_flags: TcpFlags { rx, tx }, ..sample::tcp() };
            let at = FIELDS.iter().position(|name| *name == "tcp-flags").unwrap();
            let flags: Vec<_> = lines(&record)
                .iter()
                .map(|line| line.split(' ').nth(at).unwrap().to_owned())
                .collect();
            assert_eq!(flags, [forth, back], "{rx:x} {tx:x}");
        }
    }

    #[test]
    fn every_line_has_every_field_whatever_names_are() {
        for (what, record) in sample::all() {
            for line in lines(&record) {
                assert_eq!(line.split(' ').count(), FIELDS.len(), "{what}: {line}");
            }
        }
    }

    #[test]
    fn a_gap_is_a_line_where_something_may_be_missing() {
        let second = |second: i64| Timestamp(second * 1_000);
        let cases = [
            // stage, packets, from, to, line
            (Stage::Detached, Some(5), 10, Some(20), Some("10 20 - SKIPDATA")),
            (Stage::Reboot, None, 10, Some(20), Some("10 20 - SKIPDATA")),
            (Stage::Drain, Some(0), 10, Some(20), None),
            (Stage::Interface, Some(0), 10, Some(20), Some("10 20 - NODATA")),
            (Stage::Detached, Some(5), 1, Some(20), Some("5 20 - SKIPDATA")),
            (Stage::Detached, Some(5), 10, None, Some("10 30 - SKIPDATA")),
            (Stage::Detached, Some(5), 10, Some(40), Some("10 30 - SKIPDATA")),
            (Stage::Detached, Some(5), 1, Some(5), None),
        ];
        for (stage, packets, from, to, expected) in cases {
            let gap = Gap {
                gap_id: Some(1),
                stage,
                interface: Some("wg0".to_owned()),
                peer: None,
                from: second(from),
                to: to.map(second),
                packets,
                bytes: packets.map(|packets| packets * 100),
                detail: String::new(),
            };
            let mut out = Vec::new();
            write_gap(&gap, Some(second(5)), second(30), &mut out);
            let line = String::from_utf8(out).unwrap();
            let start = "5 - wg0 - - - - - - - ";
            let rest = " - - - - - - - - - - - - - - -\n";
            let expected = expected.map(|middle| format!("{start}{middle}{rest}"));
            assert_eq!(line, expected.unwrap_or_default(), "{stage:?}");
        }
    }
}
