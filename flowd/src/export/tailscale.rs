//! Tailscale's network flow logs: a message a record, as the node of the peer would send it.
//!
//! - the source is always the node itself, whoever opened the flow: here the end inside the tunnel
//! - `tx` is what the node sent, which is flowd's `rx`
//! - traffic is virtual between peers, exit to a public address, else of a subnet

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use super::{peer_is_source, write_json};
use crate::{
    flows::Counters,
    wire::{Endpoint, Record, Timestamp},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    node_id: &'a str,
    start: Timestamp,
    end: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_node: Option<Node<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_nodes: Option<[Node<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_traffic: Option<[Connection; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_traffic: Option<[Connection; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_traffic: Option<[Connection; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    node_id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<[IpAddr; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<SocketAddr>,
    tx_pkts: u64,
    tx_bytes: u64,
    rx_pkts: u64,
    rx_bytes: u64,
}

/// One record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let (node, other) = if peer_is_source(record) {
        (&record.src, &record.dst)
    } else {
        (&record.dst, &record.src)
    };
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = record.counters;
    let connection = [Connection {
        proto: (!record.overflow).then_some(record.protocol_number),
        src: socket(node),
        dst: socket(other),
        tx_pkts: rx_packets,
        tx_bytes: rx_bytes,
        rx_pkts: tx_packets,
        rx_bytes: tx_bytes,
    }];
    let mut message = Message {
        node_id: record.peer.as_ref().map_or("", |peer| &peer.public_key),
        start: record.window_start,
        end: record.window_end,
        src_node: record.peer.as_ref().map(|peer| Node {
            node_id: &peer.public_key,
            name: &peer.name,
            addresses: node.ip.map(|ip| [ip]),
            user: peer.user.as_deref(),
            tags: peer.groups.iter().map(|group| format!("tag:{group}")).collect(),
        }),
        dst_nodes: other.peer.as_deref().map(|name| {
            [Node {
                // Of a peer at the other end, a record has the name only.
                node_id: name,
                name,
                addresses: other.ip.map(|ip| [ip]),
                user: None,
                tags: Vec::new(),
            }]
        }),
        virtual_traffic: None,
        subnet_traffic: None,
        exit_traffic: None,
    };
    let kind = match other.ip {
        _ if other.peer.is_some() => &mut message.virtual_traffic,
        Some(ip) if is_public(ip) => &mut message.exit_traffic,
        _ => &mut message.subnet_traffic,
    };
    *kind = Some(connection);
    write_json(&message, out);
}

/// An end as Go writes one: with port 0 where the protocol has none.
fn socket(end: &Endpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(end.ip?, end.port.unwrap_or(0)))
}

/// Whether an address is of the Internet and not of a network behind somebody.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 0x40;
            !(ip.is_private()
                || shared
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip == Ipv4Addr::UNSPECIFIED)
        }
        IpAddr::V6(ip) => {
            !(ip.is_unique_local()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip == Ipv6Addr::UNSPECIFIED)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::write;
    use crate::{
        export::sample::{self, ALICES_KEY},
        wire::Record,
    };

    fn message(record: &Record) -> Value {
        let mut line = Vec::new();
        write(record, &mut line);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_record_is_a_message_of_its_peers_node() {
        let expected = json!({
            "nodeId": ALICES_KEY,
            "start": "2026-11-21T04:00:00.000Z",
            "end": "2026-11-21T04:00:01.500Z",
            "srcNode": {
                "nodeId": ALICES_KEY, "name": "alice", "addresses": ["10.8.0.2"],
                "user": "alice@example.com", "tags": ["tag:ops", "tag:dev"],
            },
            "subnetTraffic": [{
                "proto": 6, "src": "10.8.0.2:40000", "dst": "10.20.0.2:443",
                "txPkts": 6, "txBytes": 634, "rxPkts": 5, "rxBytes": 5800,
            }],
        });
        assert_eq!(message(&sample::tcp()), expected);
    }

    #[test]
    fn the_node_is_the_source_whoever_opened_the_flow() {
        let message = message(&sample::udp_v6_from_remote());
        let connection = json!([{
            "proto": 17, "src": "[fd08::2]:5353", "dst": "[2001:db8::53]:53",
            "txPkts": 6, "txBytes": 634, "rxPkts": 5, "rxBytes": 5800,
        }]);
        assert_eq!(message["exitTraffic"], connection);
        assert_eq!(message["srcNode"]["addresses"], json!(["fd08::2"]));
    }

    #[test]
    fn the_kind_of_traffic_is_what_is_at_the_other_end() {
        let cases = [
            (sample::tcp(), "subnetTraffic"),
            (sample::icmp(), "virtualTraffic"),
            (sample::no_peer(), "exitTraffic"),
            (sample::overflow(), "subnetTraffic"),
        ];
        for (record, kind) in cases {
            let message = message(&record);
            let own = message.as_object().unwrap().keys().filter(|key| key.ends_with("Traffic"));
            assert_eq!(own.collect::<Vec<_>>(), [kind]);
        }
        let message = message(&sample::icmp());
        assert_eq!(message["dstNodes"][0]["name"], "bob");
        assert_eq!(message["virtualTraffic"][0]["src"], "10.8.0.2:0");
    }

    #[test]
    fn overflow_has_counters_and_no_ends() {
        let message = message(&sample::overflow());
        let connection = json!([{ "txPkts": 20, "txBytes": 1200, "rxPkts": 3, "rxBytes": 180 }]);
        assert_eq!(message["subnetTraffic"], connection);
        assert_eq!(message["nodeId"], ALICES_KEY);
    }
}
