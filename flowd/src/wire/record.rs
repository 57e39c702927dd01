//! One record, as in DESIGN: names are fixed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::flows::{
    self, Counters, EndReason, FlowId, Icmp, Identity, Initiator, TcpFlags, Verdict,
};

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `None` for overflow.
    pub ip: Option<std::net::IpAddr>,
    /// `None` for protocols without ports.
    pub port: Option<u16>,
    /// Name of the peer at this end, if it is one.
    pub peer: Option<String>,
    /// Name of the resource at this end, if it has one.
    pub resource: Option<String>,
}

/// What one flow did in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the field of `flows::Record` of the same name")]
pub struct Record {
    /// `None` for what an open flow did since its last record.
    pub record_id: Option<u64>,
    pub flow_id: FlowId,
    pub gateway: String,
    pub interface: String,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub protocol: String,
    pub protocol_number: u8,
    pub src: Endpoint,
    pub dst: Endpoint,
    pub initiator: Initiator,
    pub icmp: Option<Icmp>,
    pub peer: Option<Identity>,
    pub verdict: Verdict,
    pub enforced: bool,
    pub rule: Option<String>,
    pub policy_revision: u32,
    #[serde(flatten)]
    pub counters: Counters,
    pub total: Counters,
    pub tcp_flags: TcpFlags,
    pub end_reason: Option<EndReason>,
    pub overflow: bool,
}

impl Record {
    /// The shape of `record` on the gateway called `gateway`.
    pub fn new(gateway: &str, record: &flows::Record) -> Self {
        let (src, dst) = endpoints(record);
        Self {
            record_id: (record.record_id != 0).then_some(record.record_id),
            flow_id: FlowId::new(gateway, &record.interface, &record.tuple, record.first_seen_ms),
            gateway: gateway.to_owned(),
            interface: record.interface.to_string(),
            window_start: Timestamp(record.window_start_ms),
            window_end: Timestamp(record.window_end_ms),
            first_seen: Timestamp(record.first_seen_ms),
            last_seen: Timestamp(record.last_seen_ms),
            protocol: flows::protocol_name(record.tuple.protocol),
            protocol_number: record.tuple.protocol,
            src,
            dst,
            initiator: record.initiator,
            icmp: record.icmp,
            peer: record.peer.as_deref().cloned(),
            verdict: record.verdict,
            enforced: record.enforced,
            rule: record.rule.as_deref().map(str::to_owned),
            policy_revision: record.policy_revision,
            counters: record.counters,
            total: record.total,
            tcp_flags: record.tcp_flags,
            end_reason: record.end_reason,
            overflow: record.overflow,
        }
    }
}

/// Source and destination: the initiator comes first, the peer's side where it is unknown.
fn endpoints(record: &flows::Record) -> (Endpoint, Endpoint) {
    let tuple = &record.tuple;
    let end = |ip, port, peer: &Option<Arc<Identity>>, resource: &Option<Arc<str>>| Endpoint {
        ip: (!record.overflow).then_some(ip),
        port: (!record.overflow && tuple.has_ports()).then_some(port),
        peer: peer.as_ref().map(|peer| peer.name.clone()),
        resource: resource.as_deref().map(str::to_owned),
    };
    let inside = end(tuple.peer_ip(), tuple.peer_port, &record.peer, &record.peer_resource);
    let outside =
        end(tuple.remote_ip(), tuple.remote_port, &record.remote_peer, &record.remote_resource);
    record.initiator.first(inside, outside)
}

/// `GET /v1/records` as JSON, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPage {
    /// Oldest first.
    pub records: Vec<Record>,
    /// Pass it as `cursor` for the next page; `None` when this was the last.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use crate::{
        flows::{self, Initiator, sample},
        wire::{Flow, FlowState, Record, csv_row},
    };

    #[test]
    fn a_resource_stands_at_its_end_whoever_opened_the_flow() {
        let (branch, db) = (Some("branch"), Some("billing-db"));
        let cases = [
            // initiator, source, destination
            (Initiator::Peer, branch, db),
            (Initiator::Unknown, branch, db),
            (Initiator::Remote, db, branch),
        ];
        for (initiator, src, dst) in cases {
            let record = flows::Record {
                initiator,
                peer_resource: branch.map(Into::into),
                remote_resource: db.map(Into::into),
                ..sample::record()
            };
            let one = Record::new("gw", &record);
            assert_eq!((one.src.resource.as_deref(), one.dst.resource.as_deref()), (src, dst));
            let flow = Flow::new("gw", &flows::Flow::new(record), FlowState::Open);
            assert_eq!((flow.src, flow.dst), (one.src.clone(), one.dst.clone()));
            let cells = csv_row(&one);
            assert_eq!((Some(&*cells[13]), Some(&*cells[17])), (src, dst));
        }
    }
}
