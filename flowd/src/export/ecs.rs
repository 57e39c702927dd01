//! Elastic Common Schema: an event a record. What the schema has no place for is below `flowd`.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::{Sent, ip_version, peer_is_source, record_uid, sent, write_json};
use crate::{
    flows::{Counters, FlowId, Icmp, Identity, Initiator, TcpFlags, Verdict, protocol_keyword},
    wire::{Endpoint, Record, Timestamp},
};

/// The version whose fields are used; all of them are in 9 as well.
const VERSION: &str = "8.17.0";

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Timestamp,
    ecs: Version,
    event: Event<'a>,
    network: Network<'a>,
    source: End<'a>,
    destination: End<'a>,
    observer: Observer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    related: Related<'a>,
    flowd: Rest<'a>,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Serialize)]
struct Event<'a> {
    kind: &'static str,
    category: [&'static str; 1],
    r#type: Vec<&'static str>,
    module: &'static str,
    dataset: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    start: Timestamp,
    end: Timestamp,
    /// Nanoseconds.
    duration: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Network<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iana_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    direction: &'static str,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct End<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Observer<'a> {
    name: &'a str,
    vendor: &'static str,
    product: &'static str,
    version: &'static str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Side<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    interface: Interface<'a>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    name: &'a str,
    ruleset: &'static str,
    version: String,
}

#[derive(Serialize)]
struct Related<'a> {
    ip: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    user: BTreeSet<&'a str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    hosts: BTreeSet<&'a str>,
}

#[derive(Serialize)]
struct Rest<'a> {
    flow_id: FlowId,
    first_seen: Timestamp,
    last_seen: Timestamp,
    initiator: Initiator,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a Identity>,
    source: Names<'a>,
    destination: Names<'a>,
    verdict: Verdict,
    enforced: bool,
    policy_revision: u32,
    total: Counters,
    tcp_flags: TcpFlags,
    overflow: bool,
}

#[derive(Serialize)]
struct Names<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
}

/// One record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let (from_src, from_dst) = sent(record);
    let user = record.peer.as_ref().and_then(|peer| peer.user.as_deref());
    let (src_user, dst_user) = if peer_is_source(record) { (user, None) } else { (None, user) };
    let tunnel = || Some(Side { interface: Interface { name: &record.interface } });
    let (ingress, egress) =
        if peer_is_source(record) { (tunnel(), None) } else { (None, tunnel()) };
    let ends = [&record.src, &record.dst];
    let document = Document {
        timestamp: record.window_end,
        ecs: Version { version: VERSION },
        event: event(record),
        network: network(record),
        source: end(&record.src, from_src, src_user),
        destination: end(&record.dst, from_dst, dst_user),
        observer: Observer {
            name: &record.gateway,
            vendor: "flowd",
            product: "flowd",
            version: env!("CARGO_PKG_VERSION"),
            r#type: "vpn",
            ingress,
            egress,
        },
        rule: record.rule.as_deref().map(|rule| Rule {
            id: rule,
            name: rule,
            ruleset: "flowd",
            version: record.policy_revision.to_string(),
        }),
        related: Related {
            ip: ends.into_iter().filter_map(|end| end.ip).collect(),
            user: user.into_iter().collect(),
            hosts: ends.into_iter().filter_map(|end| end.peer.as_deref()).collect(),
        },
        flowd: Rest {
            flow_id: record.flow_id,
            first_seen: record.first_seen,
            last_seen: record.last_seen,
            initiator: record.initiator,
            icmp: record.icmp,
            peer: record.peer.as_ref(),
            source: names(&record.src),
            destination: names(&record.dst),
            verdict: record.verdict,
            enforced: record.enforced,
            policy_revision: record.policy_revision,
            total: record.total,
            tcp_flags: record.tcp_flags,
            overflow: record.overflow,
        },
    };
    write_json(&document, out);
}

fn event(record: &Record) -> Event<'_> {
    let mut kinds = vec!["connection"];
    kinds.push(match record.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    });
    kinds.extend((record.window_start == record.first_seen).then_some("start"));
    kinds.extend(record.end_reason.map(|_| "end"));
    Event {
        kind: "event",
        category: ["network"],
        r#type: kinds,
        module: "flowd",
        dataset: "flowd.records",
        id: record_uid(record),
        sequence: record.record_id,
        start: record.window_start,
        end: record.window_end,
        duration: (record.window_end.0 - record.window_start.0).saturating_mul(1_000_000),
        reason: record.end_reason.map(|reason| reason.word()),
    }
}

fn network(record: &Record) -> Network<'_> {
    Network {
        transport: protocol_keyword(record.protocol_number).filter(|_| !record.overflow),
        iana_number: (!record.overflow).then(|| record.protocol_number.to_string()),
        r#type: ip_version(record).map(|version| if version == 4 { "ipv4" } else { "ipv6" }),
        direction: match (&record.src.peer, &record.dst.peer, record.initiator) {
            (Some(_), Some(_), _) => "internal",
            (_, _, Initiator::Peer) => "inbound",
            (_, _, Initiator::Remote) => "outbound",
            (_, _, Initiator::Unknown) => "unknown",
        },
        packets: record.counters.packets(),
        bytes: record.counters.bytes(),
    }
}

fn end<'a>(end: &Endpoint, sent: Sent, user: Option<&'a str>) -> End<'a> {
    End {
        address: end.ip,
        ip: end.ip,
        port: end.port,
        packets: sent.packets,
        bytes: sent.bytes,
        user: user.map(|name| User { name }),
    }
}

fn names(end: &Endpoint) -> Names<'_> {
    Names { peer: end.peer.as_deref(), resource: end.resource.as_deref() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::write;
    use crate::{
        export::sample::{self, START_MS},
        wire::{Record, Timestamp},
    };

    fn document(record: &Record) -> Value {
        let mut line = Vec::new();
        write(record, &mut line);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_record_is_an_event_with_what_each_end_sent() {
        let document = document(&sample::tcp());
        assert_eq!(document["@timestamp"], "2026-11-21T04:00:01.500Z");
        let event = json!({
            "kind": "event", "category": ["network"],
            "type": ["connection", "allowed", "start", "end"],
            "module": "flowd", "dataset": "flowd.records", "id": "gw:7", "sequence": 7,
            "start": "2026-11-21T04:00:00.000Z", "end": "2026-11-21T04:00:01.500Z",
            "duration": 1_500_000_000, "reason": "fin",
        });
        assert_eq!(document["event"], event);
        let network = json!({
            "transport": "tcp", "iana_number": "6", "type": "ipv4", "direction": "inbound",
            "packets": 11, "bytes": 6434,
        });
        assert_eq!(document["network"], network);
        let source = json!({
            "address": "10.8.0.2", "ip": "10.8.0.2", "port": 40000, "packets": 6, "bytes": 634,
            "user": { "name": "alice@example.com" },
        });
        assert_eq!(document["source"], source);
        let destination = json!({
            "address": "10.20.0.2", "ip": "10.20.0.2", "port": 443, "packets": 5, "bytes": 5800,
        });
        assert_eq!(document["destination"], destination);
        assert_eq!(document["rule"]["id"], "web");
        assert_eq!(document["rule"]["version"], "3");
        assert_eq!(document["observer"]["ingress"]["interface"]["name"], "wg0");
        assert_eq!(document["related"]["ip"], json!(["10.8.0.2", "10.20.0.2"]));
        assert_eq!(document["flowd"]["peer"]["groups"], json!(["ops", "dev"]));
    }

    #[test]
    fn the_source_is_who_opened_the_flow() {
        let document = document(&sample::udp_v6_from_remote());
        assert_eq!(document["source"]["ip"], "2001:db8::53");
        assert_eq!(document["source"]["bytes"], 5800);
        assert_eq!(document["source"].get("user"), None);
        assert_eq!(document["destination"]["user"]["name"], "alice@example.com");
        assert_eq!(document["network"]["direction"], "outbound");
        assert_eq!(document["network"]["type"], "ipv6");
        assert_eq!(document["observer"].get("ingress"), None);
        assert_eq!(document["observer"]["egress"]["interface"]["name"], "wg0");
    }

    #[test]
    fn types_say_the_verdict_and_what_of_the_flow_it_is() {
        let later = Timestamp(START_MS - 60_000);
        let cases = [
            (sample::denied(), json!(["connection", "denied", "start", "end"])),
            (sample::denied_and_observed(), json!(["connection", "denied", "start", "end"])),
            (sample::unknown_initiator(), json!(["connection", "allowed", "start"])),
            (
                Record { first_seen: later, ..sample::unknown_initiator() },
                json!(["connection", "allowed"]),
            ),
        ];
        for (record, types) in cases {
            assert_eq!(document(&record)["event"]["type"], types);
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let overflow = document(&sample::overflow());
        assert_eq!(
            overflow["source"],
            json!({
                "packets": 20, "bytes": 1200, "user": { "name": "alice@example.com" },
            })
        );
        assert_eq!(
            overflow["network"],
            json!({
                "direction": "unknown", "packets": 23, "bytes": 1380,
            })
        );
        assert_eq!(overflow["related"]["ip"], json!([]));
        let nobody = document(&sample::no_peer());
        assert_eq!((nobody.get("rule"), nobody["flowd"].get("peer")), (None, None));
        let icmp = document(&sample::icmp());
        assert_eq!(icmp["network"]["direction"], "internal");
        assert_eq!(icmp["flowd"]["icmp"], json!({ "type": 8, "code": 0 }));
        assert_eq!(icmp["source"].get("port"), None);
    }

    #[test]
    fn names_are_what_they_are() {
        let name = "a \"b\"\n\tc";
        let document = document(&sample::named(name));
        assert_eq!(document["observer"]["name"], name);
        assert_eq!(document["flowd"]["source"]["peer"], name);
        assert_eq!(document["related"]["hosts"], json!([name]));
    }
}
