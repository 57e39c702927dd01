//! One record, as in DESIGN: names are fixed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::flows::{
    self, Counters, EndReason, FlowId, Icmp, Identity, Initiator, TcpFlags, Verdict,
};

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// `None` for overflow.
    #[schema(value_type = Option<String>)]
    pub ip: Option<std::net::IpAddr>,
    /// `None` for protocols without ports.
    pub port: Option<u16>,
    /// Name of the peer at this end, if it is one.
    pub peer: Option<String>,
    /// Name of the resource at this end, if it has one.
    pub resource: Option<String>,
}

/// What one flow did in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// `None` for what an open flow did since its last record.
    pub record_id: Option<u64>,
    /// Computed from what the flow is, so that it is the same everywhere and always.
    pub flow_id: FlowId,
    /// Id of the gateway.
    pub gateway: String,
    /// Name of the interface.
    pub interface: String,
    /// The end of the window before, or the first packet.
    pub window_start: Timestamp,
    /// When the counters were read, or the last packet of a flow that ended. A record belongs to a
    /// time range when this lies in it.
    pub window_end: Timestamp,
    /// The first packet.
    pub first_seen: Timestamp,
    /// The last packet so far.
    pub last_seen: Timestamp,
    /// By name, or by number where nobody uses a name.
    pub protocol: String,
    /// IANA's.
    pub protocol_number: u8,
    /// Who opened it; the peer's side where nobody knows.
    pub src: Endpoint,
    /// The other end.
    pub dst: Endpoint,
    /// Which side opened it.
    pub initiator: Initiator,
    /// Of ICMP and ICMPv6 only.
    pub icmp: Option<Icmp>,
    /// The peer whose leg of the tunnel it is, as it was then; `None` for addresses of nobody.
    pub peer: Option<Identity>,
    /// What the policy says.
    pub verdict: Verdict,
    /// Whether denied packets were dropped.
    pub enforced: bool,
    /// The rule that decided; `None`: none.
    pub rule: Option<String>,
    /// The policy that was in force; zero: none.
    pub policy_revision: u32,
    /// In this window.
    #[serde(flatten)]
    pub counters: Counters,
    /// Since the first packet.
    pub total: Counters,
    /// Since the first packet.
    pub tcp_flags: TcpFlags,
    /// `None` while it lives.
    pub end_reason: Option<EndReason>,
    /// The sum of a peer's packets that are in no flow: they found the table full, or the policy
    /// judged them apart from their flow.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
