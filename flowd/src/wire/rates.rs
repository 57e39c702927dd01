//! What open flows and their peers move now.

use serde::{Deserialize, Serialize};

use super::{Record, Timestamp};
use crate::{
    flows::{self, Counters, Identity, RateSort},
    live::Measured,
};

/// An open flow, and what it moved between the two looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRate {
    /// The flow, as what it did since its last record; overflow is the sum of a peer.
    #[serde(flatten)]
    pub record: Record,
    /// Between the two looks.
    pub moved: Counters,
}

/// The open flows of a peer on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRate {
    /// The interface that has it.
    pub interface: String,
    /// `None`: addresses of nobody.
    pub peer: Option<Identity>,
    /// Open flows that match.
    pub flows: u64,
    /// Of these, flows that the policy denies.
    pub denied_flows: u64,
    /// Between the two looks, overflow included.
    pub moved: Counters,
}

/// `GET /v1/rates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// When the later look was taken.
    pub now: Timestamp,
    /// How long after the look before; `None`: there was none within a minute, and nobody knows
    /// what moved.
    pub interval_ms: Option<u64>,
    /// What flows and peers are sorted by.
    pub sort: RateSort,
    /// Open flows that match, also those that are not listed.
    pub open_flows: u64,
    /// Of these, flows that the policy denies.
    pub denied_flows: u64,
    /// Of these, flows that moved something between the two looks.
    pub moving_flows: u64,
    /// What all that matches moved between the two looks, overflow included.
    pub moved: Counters,
    /// The first of the flows.
    pub flows: Vec<FlowRate>,
    /// Peers that have any of the flows, also those that are not listed.
    pub peer_count: u64,
    /// The first of these peers.
    pub peers: Vec<PeerRate>,
}

impl Rates {
    /// The shape of `measured` on the gateway called `gateway`.
    pub fn new(gateway: &str, measured: Measured) -> Self {
        let Measured { now_ms, interval, board } = measured;
        let (sort, _) = board.sorting();
        let (open_flows, denied_flows) = (board.open_flows, board.denied_flows);
        let (moving_flows, moved) = (board.moving_flows, board.moved);
        let (flows, peers, peer_count) = board.into_rows();
        let flow = |(record, moved)| FlowRate { record: Record::new(gateway, &record), moved };
        Self {
            now: Timestamp(now_ms),
            interval_ms: interval.map(|interval| interval.as_millis() as u64),
            sort,
            open_flows,
            denied_flows,
            moving_flows,
            moved,
            flows: flows.into_iter().map(flow).collect(),
            peer_count,
            peers: peers.into_iter().map(PeerRate::from).collect(),
        }
    }
}

impl From<flows::PeerRate> for PeerRate {
    fn from(rate: flows::PeerRate) -> Self {
        let flows::PeerRate { interface, peer, flows, denied_flows, moved } = rate;
        let peer = peer.as_deref().cloned();
        Self { interface: interface.to_string(), peer, flows, denied_flows, moved }
    }
}
