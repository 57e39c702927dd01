//! One flow: its records merged.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Endpoint, Record, Timestamp};
use crate::flows::{
    self, Counters, EndReason, FlowId, Icmp, Identity, Initiator, TcpFlags, Verdict,
};

/// Whether a flow still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// It is in the kernel's table.
    Open,
    /// It has ended.
    Closed,
}

/// A flow as it was in the range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// Computed from what the flow is, so that it is the same everywhere and always.
    pub flow_id: FlowId,
    /// Whether it still lives.
    pub state: FlowState,
    /// Id of the gateway.
    pub gateway: String,
    /// Name of the interface.
    pub interface: String,
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
    /// In the range.
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
    /// Records in the range, the live remainder of an open flow included.
    pub records: u64,
}

impl Flow {
    /// The shape of `flow` on the gateway called `gateway`.
    pub fn new(gateway: &str, flow: &flows::Flow, state: FlowState) -> Self {
        let Record {
            record_id: _,
            flow_id,
            gateway,
            interface,
            window_start: _,
            window_end: _,
            first_seen,
            last_seen,
            protocol,
            protocol_number,
            src,
            dst,
            initiator,
            icmp,
            peer,
            verdict,
            enforced,
            rule,
            policy_revision,
            counters: _,
            total,
            tcp_flags,
            end_reason,
            overflow,
        } = Record::new(gateway, &flow.newest);
        Self {
            flow_id,
            state,
            gateway,
            interface,
            first_seen,
            last_seen,
            protocol,
            protocol_number,
            src,
            dst,
            initiator,
            icmp,
            peer,
            verdict,
            enforced,
            rule,
            policy_revision,
            counters: flow.counters,
            total,
            tcp_flags,
            end_reason,
            overflow,
            records: flow.records,
        }
    }
}

/// `GET /v1/flows`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowPage {
    /// Newest first-seen first.
    pub flows: Vec<Flow>,
    /// Pass it as `cursor` for the next page; `None` when this was the last.
    pub next_cursor: Option<String>,
}

/// `GET /v1/flows/{flow_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowDetail {
    /// The flow over its whole life.
    pub flow: Flow,
    /// Its records, oldest first; the last has no id while the flow is open.
    pub records: Vec<Record>,
}
