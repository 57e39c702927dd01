//! Open Cybersecurity Schema Framework: a Network Activity event (class 4001) a record.

use std::net::IpAddr;

use serde::Serialize;

use super::{ip_version, peer_is_source, record_uid, tcp, write_json, zeek};
use crate::{
    flows::{Counters, EndReason, FlowId, Icmp, Identity, Initiator, Verdict, protocol_keyword},
    wire::{Endpoint, Record, Timestamp},
};

/// The version of the schema.
const VERSION: &str = "1.7.0";
const CLASS: u64 = 4_001;

#[derive(Serialize)]
struct Event<'a> {
    category_uid: u64,
    category_name: &'static str,
    class_uid: u64,
    class_name: &'static str,
    activity_id: u64,
    activity_name: &'static str,
    type_uid: u64,
    severity_id: u64,
    severity: &'static str,
    /// Unix milliseconds, like all times here.
    time: i64,
    start_time: i64,
    end_time: i64,
    duration: i64,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<End<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_endpoint: Option<End<'a>>,
    is_src_dst_assignment_known: bool,
    connection_info: Connection<'a>,
    traffic: Traffic,
    cumulative_traffic: Traffic,
    action_id: u64,
    action: &'static str,
    disposition_id: u64,
    disposition: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_rule: Option<Rule<'a>>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product,
    profiles: [&'static str; 1],
    uid: String,
    correlation_uid: FlowId,
    log_name: &'static str,
    log_source: &'a str,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct End<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// The public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface_name: Option<&'a str>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Connection<'a> {
    uid: FlowId,
    direction_id: u64,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_num: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_ver_id: Option<u8>,
    /// Of both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag_history: Option<String>,
}

/// What the source sent is out, what the destination did is in.
#[derive(Serialize)]
struct Traffic {
    packets: u64,
    bytes: u64,
    packets_out: u64,
    bytes_out: u64,
    packets_in: u64,
    bytes_in: u64,
}

#[derive(Serialize)]
struct Rule<'a> {
    uid: &'a str,
    name: &'a str,
    version: String,
}

#[derive(Serialize)]
struct Unmapped<'a> {
    first_seen: Timestamp,
    last_seen: Timestamp,
    initiator: Initiator,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    overflow: bool,
}

/// One record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let (activity_id, activity_name) = activity(record);
    let (action_id, action, disposition_id, disposition) = match (record.verdict, record.enforced) {
        (Verdict::Allow, _) => (1, "Allowed", 1, "Allowed"),
        (Verdict::Deny, true) => (2, "Denied", 6, "Dropped"),
        // Nothing was dropped: somebody has been told.
        (Verdict::Deny, false) => (3, "Observed", 17, "Logged"),
    };
    let peer = record.peer.as_ref();
    let event = Event {
        category_uid: 4,
        category_name: "Network Activity",
        class_uid: CLASS,
        class_name: "Network Activity",
        activity_id,
        activity_name,
        type_uid: CLASS * 100 + activity_id,
        severity_id: 1,
        severity: "Informational",
        time: record.window_end.0,
        start_time: record.window_start.0,
        end_time: record.window_end.0,
        duration: record.window_end.0 - record.window_start.0,
        metadata: Metadata {
            version: VERSION,
            product: Product {
                name: "flowd",
                vendor_name: "flowd",
                version: env!("CARGO_PKG_VERSION"),
            },
            profiles: ["security_control"],
            uid: record_uid(record),
            correlation_uid: record.flow_id,
            log_name: "records",
            log_source: &record.gateway,
        },
        src_endpoint: end(record, &record.src, peer_is_source(record)),
        dst_endpoint: end(record, &record.dst, !peer_is_source(record)),
        is_src_dst_assignment_known: record.initiator != Initiator::Unknown,
        connection_info: connection(record),
        traffic: traffic(record, &record.counters),
        cumulative_traffic: traffic(record, &record.total),
        action_id,
        action,
        disposition_id,
        disposition,
        firewall_rule: record.rule.as_deref().map(|rule| Rule {
            uid: rule,
            name: rule,
            version: record.policy_revision.to_string(),
        }),
        unmapped: Unmapped {
            first_seen: record.first_seen,
            last_seen: record.last_seen,
            initiator: record.initiator,
            icmp: record.icmp,
            peer_device: peer.and_then(|peer| peer.device.as_deref()),
            peer_endpoint: peer.and_then(|peer| peer.endpoint).map(|outer| outer.to_string()),
            src_resource: record.src.resource.as_deref(),
            dst_resource: record.dst.resource.as_deref(),
            end_reason: record.end_reason,
            overflow: record.overflow,
        },
    };
    write_json(&event, out);
}

/// What became of the connection in this window.
fn activity(record: &Record) -> (u64, &'static str) {
    const CLOSE: (u64, &str) = (2, "Close");
    const RESET: (u64, &str) = (3, "Reset");
    const FAIL: (u64, &str) = (4, "Fail");
    const REFUSE: (u64, &str) = (5, "Refuse");
    const TRAFFIC: (u64, &str) = (6, "Traffic");
    if record.verdict == Verdict::Deny && record.enforced {
        return REFUSE;
    }
    let is_tcp = record.protocol_number == tcp::NUMBER;
    let flags = record.tcp_flags;
    let answered = flags.rx & flags.tx & tcp::SYN != 0;
    let asked = (flags.rx | flags.tx) & tcp::SYN != 0;
    match record.end_reason {
        None => TRAFFIC,
        Some(EndReason::Rst) if asked && !answered => REFUSE,
        Some(EndReason::Rst | EndReason::Policy) => RESET,
        Some(EndReason::Idle) if is_tcp && asked && !answered => FAIL,
        Some(
            EndReason::Fin
            | EndReason::Idle
            | EndReason::PeerRemoved
            | EndReason::InterfaceRemoved
            | EndReason::Reboot
            | EndReason::Shutdown,
        ) => CLOSE,
    }
}

/// An end, with the peer's identity where it is the one inside the tunnel; `None` where nothing is
/// known of it.
fn end<'a>(record: &'a Record, end: &'a Endpoint, is_inside: bool) -> Option<End<'a>> {
    let peer = record.peer.as_ref().filter(|_| is_inside);
    let owner = |peer: &'a Identity| {
        let groups = || peer.groups.iter().map(|name| Group { name }).collect();
        peer.user.as_deref().map(|name| User { name, groups: groups() })
    };
    if end.ip.is_none() && end.peer.is_none() && !is_inside {
        return None;
    }
    Some(End {
        ip: end.ip,
        port: end.port,
        name: end.peer.as_deref(),
        uid: peer.map(|peer| peer.public_key.as_str()),
        owner: peer.and_then(owner),
        interface_name: is_inside.then_some(record.interface.as_str()),
    })
}

fn connection(record: &Record) -> Connection<'_> {
    let (direction_id, direction) = match (&record.src.peer, &record.dst.peer, record.initiator) {
        (Some(_), Some(_), _) => (3, "Lateral"),
        (_, _, Initiator::Peer) => (1, "Inbound"),
        (_, _, Initiator::Remote) => (2, "Outbound"),
        (_, _, Initiator::Unknown) => (0, "Unknown"),
    };
    let is_tcp = record.protocol_number == tcp::NUMBER;
    Connection {
        uid: record.flow_id,
        direction_id,
        direction,
        protocol_num: (!record.overflow).then_some(record.protocol_number),
        protocol_name: protocol_keyword(record.protocol_number).filter(|_| !record.overflow),
        protocol_ver_id: ip_version(record),
        tcp_flags: is_tcp.then_some(record.tcp_flags.rx | record.tcp_flags.tx),
        flag_history: Some(zeek::history(record)).filter(|history| is_tcp && !history.is_empty()),
    }
}

fn traffic(record: &Record, counters: &Counters) -> Traffic {
    let peer = (counters.rx_packets, counters.rx_bytes);
    let remote = (counters.tx_packets, counters.tx_bytes);
    let ((packets_out, bytes_out), (packets_in, bytes_in)) = record.initiator.first(peer, remote);
    Traffic {
        packets: counters.packets(),
        bytes: counters.bytes(),
        packets_out,
        bytes_out,
        packets_in,
        bytes_in,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::write;
    use crate::{
        export::sample::{self, ALICES_KEY, START_MS},
        flows::{EndReason, TcpFlags},
        wire::Record,
    };

    fn event(record: &Record) -> Value {
        let mut line = Vec::new();
        write(record, &mut line);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_record_is_a_network_activity() {
        let event = event(&sample::tcp());
        assert_eq!((&event["class_uid"], &event["type_uid"]), (&json!(4001), &json!(400_102)));
        assert_eq!((&event["time"], &event["duration"]), (&json!(START_MS + 1500), &json!(1500)));
        assert_eq!(event["metadata"]["uid"], "gw:7");
        let src = json!({
            "ip": "10.8.0.2", "port": 40000, "name": "alice", "uid": ALICES_KEY,
            "owner": {
                "name": "alice@example.com", "groups": [{ "name": "ops" }, { "name": "dev" }],
            },
            "interface_name": "wg0",
        });
        assert_eq!(event["src_endpoint"], src);
        assert_eq!(event["dst_endpoint"], json!({ "ip": "10.20.0.2", "port": 443 }));
        let traffic = json!({
            "packets": 11, "bytes": 6434, "packets_out": 6, "bytes_out": 634, "packets_in": 5,
            "bytes_in": 5800,
        });
        assert_eq!((&event["traffic"], &event["cumulative_traffic"]), (&traffic, &traffic));
        let connection = &event["connection_info"];
        assert_eq!(connection["tcp_flags"], 0x1b);
        assert_eq!(connection["flag_history"], "ShADdFf");
        assert_eq!(
            (&connection["direction_id"], &connection["protocol_ver_id"]),
            (&json!(1), &json!(4))
        );
        assert_eq!(event["firewall_rule"], json!({ "uid": "web", "name": "web", "version": "3" }));
    }

    #[test]
    fn activities_say_how_the_flow_ended() {
        let ended = |reason, rx, tx| Record {
            end_reason: Some(reason),
            tcp_flags: TcpFlags { rx, tx },
            ..sample::tcp()
        };
        let cases = [
            (sample::unknown_initiator(), 6),
            (sample::tcp(), 2),
            (ended(EndReason::Rst, 0x02, 0x14), 5),
            (ended(EndReason::Rst, 0x12, 0x16), 3),
            (ended(EndReason::Rst, 0x10, 0x14), 3),
            (ended(EndReason::Idle, 0x02, 0x00), 4),
            (ended(EndReason::Idle, 0x12, 0x12), 2),
            (ended(EndReason::Policy, 0x12, 0x12), 3),
            (ended(EndReason::Shutdown, 0x12, 0x12), 2),
            (sample::udp_v6_from_remote(), 2),
            (sample::denied(), 5),
        ];
        for (record, activity) in cases {
            let event = event(&record);
            assert_eq!(event["activity_id"], activity, "{:?}", record.end_reason);
            assert_eq!(event["type_uid"], 400_100 + activity);
        }
    }

    #[test]
    fn what_was_denied_and_what_would_have_been_are_told_apart() {
        let cases = [
            (sample::tcp(), (1, 1)),
            (sample::denied(), (2, 6)),
            (sample::denied_and_observed(), (3, 17)),
        ];
        for (record, (action, disposition)) in cases {
            let event = event(&record);
            assert_eq!(
                (&event["action_id"], &event["disposition_id"]),
                (&json!(action), &json!(disposition))
            );
        }
    }

    #[test]
    fn out_is_what_the_source_sent() {
        let event = event(&sample::udp_v6_from_remote());
        assert_eq!(
            (&event["traffic"]["bytes_out"], &event["traffic"]["bytes_in"]),
            (&json!(5800), &json!(634))
        );
        assert_eq!(event["src_endpoint"], json!({ "ip": "2001:db8::53", "port": 53 }));
        assert_eq!(event["dst_endpoint"]["uid"], ALICES_KEY);
        assert_eq!(event["connection_info"]["direction_id"], 2);
        assert_eq!(event["connection_info"].get("tcp_flags"), None);
    }

    #[test]
    fn overflow_has_the_end_that_is_known() {
        let overflow = event(&sample::overflow());
        assert_eq!(overflow.get("dst_endpoint"), None);
        assert_eq!(overflow["src_endpoint"]["name"], "alice");
        assert_eq!(overflow["is_src_dst_assignment_known"], false);
        assert_eq!(overflow["unmapped"]["overflow"], true);
        let nobody = event(&sample::no_peer());
        assert_eq!(nobody["src_endpoint"], json!({ "ip": "10.8.0.99", "interface_name": "wg0" }));
        assert_eq!(event(&sample::icmp())["connection_info"]["direction_id"], 3);
    }
}
