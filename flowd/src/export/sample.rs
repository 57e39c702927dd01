//! Records for the tests of the formats: one of each kind that is odd.

use std::net::IpAddr;

use crate::{
    flows::{Counters, EndReason, FlowId, Icmp, Identity, Initiator, TcpFlags, Tuple, Verdict},
    wire::{Endpoint, Record, Timestamp},
};

/// 2026-11-21T04:00:00Z.
pub(super) const START_MS: i64 = 1_795_233_600_000;
pub(super) const ALICES_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn end(ip: &str, port: impl Into<Option<u16>>, peer: Option<&str>) -> Endpoint {
    let ip: IpAddr = ip.parse().unwrap();
    Endpoint { ip: Some(ip), port: port.into(), peer: peer.map(str::to_owned), resource: None }
}

/// A TCP flow of alice to a server, from SYN to FIN, in one record.
pub(super) fn tcp() -> Record {
    let counters = Counters { rx_packets: 6, rx_bytes: 634, tx_packets: 5, tx_bytes: 5_800 };
    let tuple = Tuple {
        protocol: 6,
        peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
        remote_addr: "::ffff:10.20.0.2".parse().unwrap(),
        peer_port: 40_000,
        remote_port: 443,
    };
    Record {
        record_id: Some(7),
        flow_id: FlowId::new("gw", "wg0", &tuple, START_MS),
        gateway: "gw".to_owned(),
        interface: "wg0".to_owned(),
        window_start: Timestamp(START_MS),
        window_end: Timestamp(START_MS + 1_500),
        first_seen: Timestamp(START_MS),
        last_seen: Timestamp(START_MS + 1_250),
        protocol: "tcp".to_owned(),
        protocol_number: 6,
        src: end("10.8.0.2", 40_000, Some("alice")),
        dst: end("10.20.0.2", 443, None),
        initiator: Initiator::Peer,
        icmp: None,
        peer: Some(Identity {
            public_key: ALICES_KEY.to_owned(),
            name: "alice".to_owned(),
            user: Some("alice@example.com".to_owned()),
            device: Some("laptop".to_owned()),
            groups: vec!["ops".to_owned(), "dev".to_owned()],
            endpoint: Some("192.0.2.2:51820".parse().unwrap()),
        }),
        verdict: Verdict::Allow,
        enforced: false,
        rule: Some("web".to_owned()),
        policy_revision: 3,
        counters,
        total: counters,
        tcp_flags: TcpFlags { rx: 0x1b, tx: 0x1b },
        end_reason: Some(EndReason::Fin),
        overflow: false,
    }
}

/// The remote end opens a UDP flow to alice over IPv6.
pub(super) fn udp_v6_from_remote() -> Record {
    Record {
        protocol: "udp".to_owned(),
        protocol_number: 17,
        src: end("2001:db8::53", 53, None),
        dst: end("fd08::2", 5_353, Some("alice")),
        initiator: Initiator::Remote,
        tcp_flags: TcpFlags::default(),
        end_reason: Some(EndReason::Idle),
        ..tcp()
    }
}

/// An ICMP echo that is answered.
pub(super) fn icmp() -> Record {
    Record {
        protocol: "icmp".to_owned(),
        protocol_number: 1,
        src: end("10.8.0.2", None, Some("alice")),
        dst: end("10.8.0.3", None, Some("bob")),
        icmp: Some(Icmp { r#type: 8, code: 0 }),
        tcp_flags: TcpFlags::default(),
        end_reason: Some(EndReason::Idle),
        ..tcp()
    }
}

/// TCP that was under way when flowd came; it is open.
pub(super) fn unknown_initiator() -> Record {
    Record {
        initiator: Initiator::Unknown,
        tcp_flags: TcpFlags { rx: 0x18, tx: 0x10 },
        end_reason: None,
        ..tcp()
    }
}

/// A SYN that was dropped.
pub(super) fn denied() -> Record {
    let counters = Counters { rx_packets: 1, rx_bytes: 60, ..Counters::default() };
    Record {
        verdict: Verdict::Deny,
        enforced: true,
        rule: Some("no-smtp".to_owned()),
        counters,
        total: counters,
        tcp_flags: TcpFlags { rx: 0x02, tx: 0 },
        end_reason: Some(EndReason::Idle),
        ..tcp()
    }
}

/// The same where the policy is only observed, and so answered.
pub(super) fn denied_and_observed() -> Record {
    Record { verdict: Verdict::Deny, rule: Some("no-smtp".to_owned()), ..tcp() }
}

/// What of alice's packets found the flow table full.
pub(super) fn overflow() -> Record {
    let counters = Counters { rx_packets: 20, rx_bytes: 1_200, tx_packets: 3, tx_bytes: 180 };
    let nowhere = Endpoint::default();
    Record {
        protocol: "0".to_owned(),
        protocol_number: 0,
        src: Endpoint { peer: Some("alice".to_owned()), ..nowhere.clone() },
        dst: nowhere,
        initiator: Initiator::Unknown,
        rule: None,
        counters,
        total: counters,
        tcp_flags: TcpFlags::default(),
        end_reason: None,
        overflow: true,
        ..tcp()
    }
}

/// Addresses of nobody, in a protocol without ports.
pub(super) fn no_peer() -> Record {
    Record {
        protocol: "gre".to_owned(),
        protocol_number: 47,
        src: end("10.8.0.99", None, None),
        dst: end("198.51.100.1", None, None),
        peer: None,
        rule: None,
        policy_revision: 0,
        tcp_flags: TcpFlags::default(),
        ..tcp()
    }
}

/// Everything that has a name has this one.
pub(super) fn named(name: &str) -> Record {
    let record = tcp();
    let peer = record.peer.clone().unwrap();
    let text = || Some(name.to_owned());
    Record {
        gateway: name.to_owned(),
        interface: name.to_owned(),
        src: Endpoint { peer: text(), resource: text(), ..record.src.clone() },
        dst: Endpoint { peer: text(), resource: text(), ..record.dst.clone() },
        peer: Some(Identity {
            name: name.to_owned(),
            user: text(),
            device: text(),
            groups: vec![name.to_owned()],
            ..peer
        }),
        rule: text(),
        ..record
    }
}

/// Every kind, with what it is.
pub(super) fn all() -> Vec<(&'static str, Record)> {
    vec![
        ("tcp", tcp()),
        ("udp over IPv6 from the remote end", udp_v6_from_remote()),
        ("icmp", icmp()),
        ("unknown initiator", unknown_initiator()),
        ("denied", denied()),
        ("denied and observed", denied_and_observed()),
        ("overflow", overflow()),
        ("no peer", no_peer()),
        ("odd names", named("=a \"b\"\n\tc\\ é, -")),
    ]
}
