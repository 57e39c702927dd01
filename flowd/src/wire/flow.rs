//! One flow: its records merged.

use serde::{Deserialize, Serialize};

use super::{Endpoint, Record, Timestamp};
use crate::flows::{
    self, Counters, EndReason, FlowId, Icmp, Identity, Initiator, TcpFlags, Verdict,
};

/// Whether a flow still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// It is in the kernel's table.
    Open,
    /// It has ended.
    Closed,
}

/// A flow as it was in the range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the field of `flows::Record` of the same name")]
pub struct Flow {
    pub flow_id: FlowId,
    pub state: FlowState,
    pub gateway: String,
    pub interface: String,
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
    /// In the range.
    #[serde(flatten)]
    pub counters: Counters,
    pub total: Counters,
    pub tcp_flags: TcpFlags,
    pub end_reason: Option<EndReason>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// Newest first-seen first.
    pub flows: Vec<Flow>,
    /// Pass it as `cursor` for the next page; `None` when this was the last.
    pub next_cursor: Option<String>,
}

/// `GET /v1/flows/{flow_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowDetail {
    /// The flow over its whole life.
    pub flow: Flow,
    /// Its records, oldest first; the last has no id while the flow is open.
    pub records: Vec<Record>,
}
