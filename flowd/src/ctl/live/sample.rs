//! Answers of a daemon, for tests.

use crate::{
    flows::{Counters, FlowId, Identity, Verdict, sample},
    live::Measured,
    wire::{self, Timestamp},
};

/// When it answers: 2026-11-21T12:00:00Z.
pub(super) const NOW_MS: i64 = 1_795_262_400_000;

/// A daemon in peace, so many milliseconds later.
pub(super) fn status(later_ms: i64) -> wire::Status {
    let seen = 3_400_000 * u64::try_from(later_ms).unwrap() / 1_000;
    wire::Status {
        version: "0.1.0".to_owned(),
        gateway: "wgserver-001".to_owned(),
        started: Timestamp(NOW_MS - 7_384_000),
        now: Timestamp(NOW_MS + later_ms),
        interfaces: vec![wire::InterfaceStatus {
            name: "wg0".to_owned(),
            ifindex: 4,
            backend: "kernel".to_owned(),
            attached_by: "tcx".to_owned(),
            since: Timestamp(NOW_MS - 7_384_000),
            ingress: Vec::new(),
            egress: Vec::new(),
            peers: 3,
            seen: Counters {
                rx_packets: seen / 1_000,
                rx_bytes: seen,
                tx_packets: seen / 2_000,
                tx_bytes: seen / 4,
            },
            flows: Counters::default(),
            overflow: Counters::default(),
            uncounted: Vec::new(),
            coalesced: Counters::default(),
            dropped: Counters::default(),
            device: Counters::default(),
        }],
        flow_table: wire::TableStatus { entries: 1_204, capacity: 131_072 },
        drain: wire::DrainStatus::default(),
        store: wire::StoreStatus::default(),
        policy: wire::PolicyStatus { revision: 4, mode: "enforce".to_owned(), stays: true },
        gaps: Vec::new(),
        open_gaps: Vec::new(),
    }
}

/// Who has which flow, of which port, what it moved in a second, and whether it may.
pub(super) type Flow = (&'static str, u16, u64, Verdict);

/// Three peers; a name that means harm to terminals among them.
pub(super) const FLOWS: [Flow; 5] = [
    ("alice-laptop", 443, 1_234_567, Verdict::Allow),
    ("alice-laptop", 22, 0, Verdict::Allow),
    ("bob-workstation-in-the-attic", 5432, 40_000, Verdict::Allow),
    ("\x1b[31mmallory\u{202e}", 25, 900, Verdict::Deny),
    ("界界界界界界", 8443, 70, Verdict::Allow),
];

/// What a daemon with these flows answers; `all` of them are open.
pub(super) fn rates(flows: &[Flow], all: u64) -> wire::Rates {
    let mut rates = wire::Rates {
        now: Timestamp(NOW_MS),
        interval_ms: Some(1_000),
        sort: crate::flows::RateSort::Rate,
        open_flows: all,
        denied_flows: 0,
        moving_flows: 0,
        moved: Counters::default(),
        flows: Vec::new(),
        peer_count: 0,
        peers: Vec::new(),
    };
    for (name, port, bytes, verdict) in flows {
        let moved = Counters {
            rx_packets: bytes.div_ceil(1_000),
            rx_bytes: *bytes,
            tx_packets: bytes.div_ceil(2_000),
            tx_bytes: bytes / 4,
        };
        let denied = u64::from(*verdict == Verdict::Deny);
        rates.denied_flows += denied;
        rates.moved += moved;
        rates.flows.push(wire::FlowRate { record: record(name, *port, *verdict), moved });
        let known = rates
            .peers
            .iter_mut()
            .find(|peer| peer.peer.as_ref().is_some_and(|identity| identity.name == **name));
        match known {
            Some(peer) => {
                (peer.flows, peer.denied_flows) = (peer.flows + 1, peer.denied_flows + denied);
                peer.moved += moved;
            }
            None => rates.peers.push(wire::PeerRate {
                interface: "wg0".to_owned(),
                peer: Some(identity(name)),
                flows: 1,
                denied_flows: denied,
                moved,
            }),
        }
    }
    rates.peer_count = rates.peers.len() as u64;
    rates
}

/// The id of the flow of a port.
pub(super) fn flow_id(port: u16) -> FlowId {
    record("", port, Verdict::Allow).flow_id
}

/// Everything about a flow.
pub(super) fn detail(flow: Flow) -> wire::FlowDetail {
    let (name, port, _, verdict) = flow;
    let record = stored(name, port, verdict);
    let flow = crate::flows::Flow::new(record.clone());
    wire::FlowDetail {
        flow: wire::Flow::new("wgserver-001", &flow, wire::FlowState::Open),
        records: vec![wire::Record::new("wgserver-001", &record)],
    }
}

fn identity(name: &str) -> Identity {
    Identity {
        public_key: format!("{name}-key="),
        name: name.to_owned(),
        user: name.starts_with("alice").then(|| "alice@example.com".to_owned()),
        device: None,
        groups: vec!["ops".to_owned()],
        endpoint: None,
    }
}

fn record(name: &str, port: u16, verdict: Verdict) -> wire::Record {
    wire::Record::new("wgserver-001", &stored(name, port, verdict))
}

fn stored(name: &str, port: u16, verdict: Verdict) -> crate::flows::Record {
    let mut record = sample::record();
    record.record_id = 0;
    record.tuple.remote_port = port;
    (record.first_seen_ms, record.last_seen_ms) = (NOW_MS - 62_000, NOW_MS - 1_000);
    (record.window_start_ms, record.window_end_ms) = (NOW_MS - 62_000, NOW_MS);
    record.peer = Some(std::sync::Arc::new(identity(name)));
    record.verdict = verdict;
    record.enforced = false;
    record.rule = (verdict == Verdict::Deny).then(|| "no-smtp".into());
    record
}

/// What was measured of no flow.
pub(super) fn nothing() -> wire::Rates {
    let board =
        crate::flows::Board::new(crate::flows::RateSort::Rate, crate::flows::Order::Descending, 1);
    wire::Rates::new("wgserver-001", Measured { now_ms: NOW_MS, interval: None, board })
}
