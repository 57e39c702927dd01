//! What the drain thread answers: open flows with their live counters, status, peers.

use std::collections::{BTreeMap, HashMap};

use flowd_common::{
    counter::{Counter, CounterKey, Direction, Tally},
    flow::{FlowKey, FlowValue},
    peer::PeerId,
};

use crate::{
    dataplane::DataplaneError,
    flows::{By, Counters, Filter, FlowId, Ranking, Record, State},
    live::{Pending, PendingSummary, Position, Request, Surroundings},
    wire::{self, Timestamp},
};

use super::{
    collector::{Collector, now_ms},
    interfaces::Watched,
    ledger::{Open, View, total},
    overflow::by_bucket,
};

/// Gaps that status names one by one.
const OPEN_GAPS: usize = 10;

impl Collector {
    /// Answers one question. A reader that has gone is no error; a table that cannot be read leaves
    /// the question without an answer, which the API tells.
    pub(super) fn answer(&mut self, question: Request) {
        let answered = match question {
            Request::Flows { filter, before, limit, reply } => self
                .open_flows(&filter, before.as_ref(), limit)
                .map(|answer| drop(reply.send(self.pending(answer)))),
            Request::Flow { id, reply } => {
                self.open_flow(id).map(|answer| drop(reply.send(self.pending(answer))))
            }
            Request::Summary { filter, reply } => {
                self.open_summary(&filter).map(|answer| drop(reply.send(self.pending(answer))))
            }
            Request::Top { filter, by, reply } => {
                self.open_top(&filter, by).map(|answer| drop(reply.send(self.pending(answer))))
            }
            Request::Gaps { reply } => {
                let answer = self.gaps.unwritten().cloned().collect();
                drop(reply.send(Pending { watermark: self.recorder.last_gap_id(), answer }));
                Ok(())
            }
            Request::Status { reply } => self.status().map(|answer| drop(reply.send(answer))),
            Request::Peers { reply } => self.peer_list().map(|answer| drop(reply.send(answer))),
            Request::Policy { reply } => self.policy().map(|answer| drop(reply.send(answer))),
            Request::CheckPolicy { text, caller, reply } => {
                self.check_policy(&text, caller).map(|answer| drop(reply.send(answer)))
            }
            Request::ApplyPolicy { text, caller, reply } => {
                let _gone = reply.send(self.apply_policy(text, caller));
                Ok(())
            }
            Request::Why { question, reply } => {
                let _gone = reply.send(self.why(&question));
                Ok(())
            }
            Request::World { reply } => {
                let (world, known) = (self.peers.world(), self.peers.known());
                drop(reply.send(self.pending(Surroundings { world, known })));
                Ok(())
            }
            Request::Interfaces { .. }
            | Request::Names(_)
            | Request::PolicyFile(_)
            | Request::Stop => Ok(()),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a question stays without an answer");
        }
    }

    fn pending<T>(&self, answer: T) -> Pending<T> {
        Pending { watermark: self.recorder.last_record_id(), answer }
    }

    /// Shows every open flow, overflow buckets included, as what it did since its last record.
    pub(super) fn for_each_open(
        &mut self,
        mut visit: impl FnMut(Record),
    ) -> Result<(), DataplaneError> {
        self.walk(|view, key, value, open| visit(view.record(key, value, open, None)))?;
        let line = self.time_line()?;
        let Self { dataplane, overflow, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        let buckets = by_bucket(&dataplane.overflow()?);
        for (_, record) in overflow.pending(&buckets, &view) {
            visit(record);
        }
        Ok(())
    }

    fn walk(
        &mut self,
        mut visit: impl FnMut(&View<'_>, &FlowKey, &FlowValue, &Open),
    ) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let Self { dataplane, ledger, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        dataplane.for_each_flow(|key, value| {
            if total(value) != Counters::default() {
                let open = ledger.open(key, value, peers);
                visit(&view, key, value, open);
            }
        })?;
        Ok(())
    }

    fn open_flows(
        &mut self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Vec<Record>, DataplaneError> {
        let mut newest: BTreeMap<Position, Record> = BTreeMap::new();
        self.for_each_open(|record| {
            let position = Position::of(&record);
            if wants(filter, &record) && before.is_none_or(|before| position < *before) {
                newest.insert(position, record);
                if newest.len() > limit {
                    newest.pop_first();
                }
            }
        })?;
        Ok(newest.into_values().rev().collect())
    }

    fn open_flow(&mut self, id: FlowId) -> Result<Option<Record>, DataplaneError> {
        let gateway = self.config.gateway.clone();
        let mut found = None;
        self.for_each_open(|record| {
            if record.first_seen_ms == id.first_seen_ms()
                && FlowId::new(&gateway, &record.interface, &record.tuple, record.first_seen_ms)
                    == id
            {
                found = Some(record);
            }
        })?;
        Ok(found)
    }

    fn open_summary(&mut self, filter: &Filter) -> Result<PendingSummary, DataplaneError> {
        let mut answer = PendingSummary::default();
        let since_ms = filter.since_ms.unwrap_or(i64::MIN);
        self.for_each_open(|record| {
            if wants(filter, &record) {
                answer.open_flows += u64::from(!record.overflow);
                answer.summary.absorb(&record, since_ms);
            }
        })?;
        Ok(answer)
    }

    fn open_top(&mut self, filter: &Filter, by: By) -> Result<Ranking, DataplaneError> {
        let mut answer = Ranking::new(by);
        let since_ms = filter.since_ms.unwrap_or(i64::MIN);
        self.for_each_open(|record| {
            if wants(filter, &record) {
                answer.absorb(&record, since_ms);
            }
        })?;
        Ok(answer)
    }

    fn status(&mut self) -> Result<wire::Status, DataplaneError> {
        let mut live: HashMap<u32, Counters> = HashMap::new();
        let mut entries = 0;
        self.walk(|_, key, value, _| {
            entries += 1;
            *live.entry(key.ifindex).or_default() += total(value);
        })?;
        for ((ifindex, _), sum) in &self.finished {
            *live.entry(*ifindex).or_default() += *sum;
        }
        self.interfaces.read_devices();
        let overflow = by_bucket(&self.dataplane.overflow()?);
        let counters = self.dataplane.counters()?;
        let interfaces = self
            .interfaces
            .iter()
            .map(|(ifindex, watched)| {
                let flows = live.get(&ifindex).copied().unwrap_or_default();
                let mut over = Counters::default();
                for (bucket, sum) in &overflow {
                    if bucket.ifindex == ifindex {
                        over += *sum;
                    }
                }
                interface_status(ifindex, watched, flows, over, &counters)
            })
            .collect();
        let (segments, bytes) = self.recorder.size();
        Ok(wire::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.config.gateway.clone(),
            started: Timestamp(self.started_ms),
            now: Timestamp(now_ms()),
            interfaces,
            flow_table: wire::TableStatus {
                entries,
                capacity: u64::from(self.dataplane.capacity()),
            },
            drain: self.drains,
            store: wire::StoreStatus {
                path: self.config.store.display().to_string(),
                segments,
                bytes,
                last_record_id: self.recorder.last_record_id(),
                error: self.recorder.error.as_ref().map(|trouble| trouble.text.clone()),
                failing_since: self.recorder.error.as_ref().map(|t| Timestamp(t.since_ms)),
                set_aside: self.recorder.set_aside(),
            },
            policy: wire::PolicyStatus {
                revision: self.verdicts.revision(),
                mode: self.verdicts.revision.policy.mode.word().to_owned(),
                stays: self.interfaces.are_staying(),
            },
            gaps: self.gaps.stages(),
            open_gaps: self.gaps.lasting().take(OPEN_GAPS).map(wire::Gap::from).collect(),
        })
    }

    fn peer_list(&mut self) -> Result<Vec<wire::Peer>, DataplaneError> {
        let mut live: HashMap<PeerId, (u64, Counters)> = HashMap::new();
        self.walk(|_, _, value, open| {
            let (flows, counters) = live.entry(open.peer).or_default();
            *flows += 1;
            *counters += total(value);
        })?;
        for ((_, peer), sum) in &self.finished {
            live.entry(*peer).or_default().1 += *sum;
        }
        let overflow = by_bucket(&self.dataplane.overflow()?);
        let mut list = Vec::new();
        for (ifindex, watched) in self.interfaces.iter().filter(|(_, w)| w.attachment.is_some()) {
            for peer in &watched.now.peers {
                let Some(id) = self.peers.id(ifindex, &peer.public_key) else {
                    continue;
                };
                let Some(identity) = self.peers.identity(id) else {
                    continue;
                };
                let (open_flows, mut counters) = live.get(&id).copied().unwrap_or_default();
                for (bucket, sum) in &overflow {
                    if bucket.peer == id {
                        counters += *sum;
                    }
                }
                let (connected_since, coverage) = self.told_of(ifindex, &peer.public_key);
                list.push(wire::Peer {
                    identity: identity.as_ref().clone(),
                    interface: watched.name.to_string(),
                    allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
                    latest_handshake: peer.latest_handshake_ms.map(Timestamp),
                    connected_since,
                    open_flows,
                    counters,
                    wireguard: wire::WireguardCounters {
                        rx_bytes: peer.rx_bytes,
                        tx_bytes: peer.tx_bytes,
                    },
                    coverage,
                });
            }
        }
        list.sort_by(|a, b| {
            (&a.interface, &a.identity.name).cmp(&(&b.interface, &b.identity.name))
        });
        Ok(list)
    }
}

/// Whether the filter asks for an open flow, or for a bucket, which is not a flow that lives.
fn wants(filter: &Filter, record: &Record) -> bool {
    let state = if record.overflow { State::Closed } else { State::Open };
    filter.state.is_none_or(|wanted| wanted == state) && filter.matches(record)
}

fn interface_status(
    ifindex: u32,
    watched: &Watched,
    flows: Counters,
    overflow: Counters,
    counters: &[(CounterKey, Tally)],
) -> wire::InterfaceStatus {
    let mut seen = flows + overflow;
    let mut uncounted = Vec::new();
    for reason in Counter::UNCOUNTED {
        let sum = named(ifindex, reason, counters);
        seen += sum;
        if sum != Counters::default() {
            uncounted.push(wire::NamedTally { reason: reason.name().to_owned(), counters: sum });
        }
    }
    let attached_by = if watched.attachment.is_some() { watched.attached_by } else { "detached" };
    wire::InterfaceStatus {
        name: watched.name.to_string(),
        ifindex,
        backend: watched.now.backend.word().to_owned(),
        attached_by: attached_by.to_owned(),
        since: Timestamp(watched.since_ms),
        peers: watched.now.peers.len() as u64,
        seen,
        flows,
        overflow,
        uncounted,
        coalesced: named(ifindex, Counter::Coalesced, counters),
        dropped: named(ifindex, Counter::Dropped, counters),
        device: watched.device(),
    }
}

/// Both directions of one named counter.
pub(super) fn named(ifindex: u32, counter: Counter, counters: &[(CounterKey, Tally)]) -> Counters {
    let mut sum = Counters::default();
    for (key, tally) in counters {
        if key.ifindex != ifindex || key.counter != counter as u8 {
            continue;
        }
        if key.direction == Direction::Ingress as u8 {
            sum.rx_packets += tally.packets;
            sum.rx_bytes += tally.bytes;
        } else {
            sum.tx_packets += tally.packets;
            sum.tx_bytes += tally.bytes;
        }
    }
    sum
}
