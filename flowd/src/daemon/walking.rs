//! Questions that a walk over the table answers, as many as there are with one walk.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use flowd_common::{
    flow::{FlowKey, FlowValue},
    peer::PeerId,
};
use tokio::sync::oneshot;

use super::{
    ledger::{Open, total},
    overflow::Bucket,
    verdicts::verdict_of,
};
use crate::{
    flows::{Board, Counters, Filter, FlowId, Ranking, Record, Series, State, Verdict},
    live::{Measured, Metrics, Pending, PendingSummary, Position, Request},
    wire,
};

/// What a walk over the table sums up besides.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) entries: u64,
    pub(super) by_interface: HashMap<u32, Counters>,
    /// Flows, and what they did.
    pub(super) by_peer: HashMap<PeerId, (u64, Counters)>,
    pub(super) overflow: BTreeMap<Bucket, Counters>,
}

impl Counted {
    pub(super) fn count(&mut self, key: &FlowKey, value: &FlowValue, open: &Open) {
        self.entries += 1;
        *self.by_interface.entry(key.ifindex).or_default() += total(value);
        let (flows, counters) = self.by_peer.entry(open.peer).or_default();
        *flows += 1;
        *counters += total(value);
    }
}

/// What open flows did since their last records, by interface, peer and verdict.
#[derive(Default)]
pub(super) struct Unrecorded(HashMap<(u32, PeerId, Verdict), Counters>);

impl Unrecorded {
    pub(super) fn count(&mut self, key: &FlowKey, value: &FlowValue, open: &Open) {
        let verdict = verdict_of(value.judgement);
        let sum = self.0.entry((key.ifindex, open.peer, verdict)).or_default();
        *sum += total(value) - open.recorded;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(u32, PeerId, Verdict), &Counters)> {
        self.0.iter()
    }
}

/// A question that a walk over the table answers.
pub(super) enum Walking {
    Flows {
        filter: Filter,
        before: Option<Position>,
        limit: usize,
        newest: BTreeMap<Position, Record>,
        reply: oneshot::Sender<Pending<Vec<Record>>>,
    },
    Flow {
        id: FlowId,
        found: Option<Record>,
        reply: oneshot::Sender<Pending<Option<Record>>>,
    },
    Summary {
        filter: Filter,
        answer: PendingSummary,
        reply: oneshot::Sender<Pending<PendingSummary>>,
    },
    Top {
        filter: Filter,
        answer: Ranking,
        reply: oneshot::Sender<Pending<Ranking>>,
    },
    Series {
        filter: Filter,
        answer: Series,
        reply: oneshot::Sender<Pending<Series>>,
    },
    Rates {
        filter: Filter,
        board: Board,
        reply: oneshot::Sender<Measured>,
    },
    Status {
        reply: oneshot::Sender<wire::Status>,
    },
    Peers {
        reply: oneshot::Sender<Arc<Vec<wire::Peer>>>,
    },
    Metrics {
        reply: oneshot::Sender<Arc<Metrics>>,
    },
}

impl Walking {
    /// Another message comes back.
    pub(super) fn new(question: Request) -> Result<Self, Box<Request>> {
        Ok(match question {
            Request::Flows { filter, before, limit, reply } => {
                Self::Flows { filter, before, limit, newest: BTreeMap::new(), reply }
            }
            Request::Flow { id, reply } => Self::Flow { id, found: None, reply },
            Request::Summary { filter, reply } => {
                Self::Summary { filter, answer: PendingSummary::default(), reply }
            }
            Request::Top { filter, by, reply } => {
                Self::Top { filter, answer: Ranking::new(by), reply }
            }
            Request::Series { filter, empty, reply } => {
                Self::Series { filter, answer: empty, reply }
            }
            Request::Rates { filter, empty, reply } => Self::Rates { filter, board: empty, reply },
            Request::Status { reply } => Self::Status { reply },
            Request::Peers { reply } => Self::Peers { reply },
            Request::Metrics { reply } => Self::Metrics { reply },
            other => return Err(Box::new(other)),
        })
    }

    pub(super) fn is_of_records(&self) -> bool {
        !matches!(self, Self::Status { .. } | Self::Peers { .. } | Self::Metrics { .. })
    }

    pub(super) fn is_of_metrics(&self) -> bool {
        matches!(self, Self::Metrics { .. })
    }

    pub(super) fn is_of_rates(&self) -> bool {
        matches!(self, Self::Rates { .. })
    }

    /// Takes what an open flow or a bucket moved since the look before.
    pub(super) fn measure(&mut self, record: &Record, moved: Counters) {
        match self {
            Self::Rates { filter, board, .. } if filter.matches(record) => {
                board.absorb(record, moved);
            }
            _ => {}
        }
    }

    /// Takes an open flow or a bucket, as what it did since its last record.
    pub(super) fn visit(&mut self, gateway: &str, record: &Record) {
        match self {
            Self::Flows { filter, before, limit, newest, .. } if wants(filter, record) => {
                let position = Position::of(record);
                if before.as_ref().is_none_or(|before| position < *before) {
                    newest.insert(position, record.clone());
                    if newest.len() > *limit {
                        newest.pop_first();
                    }
                }
            }
            Self::Flow { id, found, .. } if record.first_seen_ms == id.first_seen_ms() => {
                let Record { interface, tuple, first_seen_ms, .. } = record;
                if FlowId::new(gateway, interface, tuple, *first_seen_ms) == *id {
                    *found = Some(record.clone());
                }
            }
            Self::Summary { filter, answer, .. } if wants(filter, record) => {
                answer.open_flows += u64::from(!record.overflow);
                answer.summary.absorb(record, filter.opening());
            }
            Self::Top { filter, answer, .. } if wants(filter, record) => {
                answer.absorb(record, filter.opening());
            }
            Self::Series { filter, answer, .. } if wants(filter, record) => {
                answer.absorb(record, filter.opening());
            }
            _ => {}
        }
    }
}

/// Whether the filter asks for an open flow, or for a bucket, which is not a flow that lives.
fn wants(filter: &Filter, record: &Record) -> bool {
    let state = if record.overflow { State::Closed } else { State::Open };
    filter.state.is_none_or(|wanted| wanted == state) && filter.matches(record)
}
