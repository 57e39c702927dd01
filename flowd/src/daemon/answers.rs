//! What the drain thread answers: open flows with their live counters, status, peers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use flowd_common::{
    counter::{Counter, CounterKey, Direction, Tally},
    flow::{FlowKey, FlowValue},
    peer::PeerId,
};

use crate::{
    dataplane::{DataplaneError, Hanging},
    flows::{Counters, Gap, Record},
    live::{Measured, Metrics, Pending, PendingSummary, Request, Surroundings},
    wire::{self, Timestamp},
};

use super::{
    collector::{Collector, now_ms},
    ledger::{Open, View, total},
    overflow::{Bucket, by_bucket, one_way},
    walking::{Counted, Unrecorded, Walking},
    watched::Watched,
};

/// Gaps that status names one by one.
const OPEN_GAPS: usize = 10;
/// Questions that one walk over the table answers at most.
pub(super) const TOGETHER: usize = 256;

impl Collector {
    /// Answers questions, those about open flows with one walk over the table for all of them. A
    /// reader that has gone is no error; a table that cannot be read leaves them without an answer,
    /// which the API tells.
    pub(super) fn answer(&mut self, questions: Vec<Request>) {
        let mut walking = Vec::new();
        for question in questions {
            match Walking::new(question) {
                Ok(question) => walking.push(question),
                Err(question) => self.answer_at_once(*question),
            }
        }
        if let Err(error) = self.answer_by_walking(walking) {
            tracing::warn!(%error, "questions stay without an answer");
        }
    }

    fn answer_at_once(&mut self, question: Request) {
        let answered = match question {
            Request::Watermark { reply } => {
                let _gone = reply.send(self.recorder.last_record_id());
                Ok(())
            }
            Request::Gaps { reply } => {
                drop(reply.send(self.pending_gaps()));
                Ok(())
            }
            Request::Policy { reply } => self.policy().map(|answer| drop(reply.send(answer))),
            Request::CheckPolicy { text, caller, turn: _turn, reply } => {
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
            Request::Step { step, reply } => {
                let _gone = reply.send(self.recorder.take_step(now_ms(), &step));
                Ok(())
            }
            // Questions that take a walk, and news, come another way.
            _ => Ok(()),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a question stays without an answer");
        }
    }

    fn answer_by_walking(&mut self, mut questions: Vec<Walking>) -> Result<(), DataplaneError> {
        if questions.is_empty() {
            return Ok(());
        }
        let gateway = self.config.gateway.clone();
        let of_records = questions.iter().any(Walking::is_of_records);
        let of_rates = questions.iter().any(Walking::is_of_rates);
        let mut meter = of_rates.then(|| std::mem::take(&mut self.meter));
        if let Some(meter) = &mut meter {
            meter.begin(Instant::now());
        }
        let of_metrics = questions.iter().any(Walking::is_of_metrics);
        let mut unrecorded = Unrecorded::default();
        let mut sums = Counted::default();
        self.walk(|view, key, value, open| {
            sums.count(key, value, open);
            if of_metrics {
                unrecorded.count(key, value, open);
            }
            if of_records {
                let record = view.record(key, value, open, None);
                let moved = meter.as_mut().map(|meter| meter.moved(&record));
                visit(&mut questions, &gateway, &record, moved);
            }
        })?;
        for ((ifindex, peer), sum) in &self.finished {
            *sums.by_interface.entry(*ifindex).or_default() += *sum;
            sums.by_peer.entry(*peer).or_default().1 += *sum;
        }
        sums.overflow = by_bucket(&self.dataplane.overflow()?);
        if of_records {
            for record in self.pending_overflow(&sums.overflow)? {
                let moved = meter.as_mut().map(|meter| meter.moved(&record));
                visit(&mut questions, &gateway, &record, moved);
            }
        }
        if let Some(mut meter) = meter {
            meter.end();
            self.meter = meter;
        }
        let metrics = of_metrics.then(|| self.metrics(&sums, &unrecorded)).transpose()?;
        let (mut status, mut peers) = (None, None);
        for question in questions {
            match question {
                Walking::Flows { newest, reply, .. } => {
                    let newest = newest.into_values().rev().collect();
                    drop(reply.send(self.pending(newest)));
                }
                Walking::Flow { found, reply, .. } => drop(reply.send(self.pending(found))),
                Walking::Summary { answer, reply, .. } => {
                    let answer = PendingSummary { gaps: self.pending_gaps(), ..answer };
                    drop(reply.send(self.pending(answer)));
                }
                Walking::Top { answer, reply, .. } => drop(reply.send(self.pending(answer))),
                Walking::Series { answer, reply, .. } => drop(reply.send(self.pending(answer))),
                Walking::Rates { board, reply, .. } => {
                    let interval = self.meter.interval();
                    drop(reply.send(Measured { now_ms: now_ms(), interval, board }));
                }
                Walking::Status { reply } => {
                    let status = match &mut status {
                        Some(status) => status,
                        None => status.insert(self.status(&sums)?),
                    };
                    drop(reply.send(status.clone()));
                }
                Walking::Peers { reply } => {
                    let peers = peers.get_or_insert_with(|| Arc::new(self.peer_list(&sums)));
                    drop(reply.send(peers.clone()));
                }
                Walking::Metrics { reply } => {
                    drop(metrics.clone().map(|metrics| reply.send(metrics)));
                }
            }
        }
        Ok(())
    }

    fn pending_gaps(&self) -> Pending<Vec<Gap>> {
        let answer = self.gaps.unwritten().cloned().collect();
        Pending { watermark: self.recorder.last_gap_id(), answer }
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
        let buckets = by_bucket(&self.dataplane.overflow()?);
        self.pending_overflow(&buckets)?.into_iter().for_each(visit);
        Ok(())
    }

    /// What the overflow buckets did since their last records.
    fn pending_overflow(
        &mut self,
        buckets: &BTreeMap<Bucket, Counters>,
    ) -> Result<Vec<Record>, DataplaneError> {
        let line = self.time_line()?;
        let Self { overflow, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        Ok(overflow.pending(buckets, &view).into_iter().map(|(_, record)| record).collect())
    }

    fn walk(
        &mut self,
        mut visit: impl FnMut(&View<'_>, &FlowKey, &FlowValue, &Open),
    ) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let Self { dataplane, ledger, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        dataplane.for_each_flow(|key, value| {
            let open = ledger.open(key, value, peers);
            if total(value) != Counters::default() && !open.is_closed {
                visit(&view, key, value, &open);
            }
        })?;
        Ok(())
    }

    /// What the books have of every interface: flows, overflow and uncounted.
    pub(super) fn counted_by_interface(
        &mut self,
    ) -> Result<HashMap<u32, Counters>, DataplaneError> {
        let mut sums = Counted::default();
        self.walk(|_, key, value, open| sums.count(key, value, open))?;
        let mut counted = sums.by_interface;
        for ((ifindex, _), sum) in &self.finished {
            *counted.entry(*ifindex).or_default() += *sum;
        }
        for (bucket, sum) in by_bucket(&self.dataplane.overflow()?) {
            *counted.entry(bucket.ifindex).or_default() += sum;
        }
        for (key, tally) in self.dataplane.counters()? {
            if Counter::UNCOUNTED.iter().any(|counter| *counter as u8 == key.counter) {
                *counted.entry(key.ifindex).or_default() += one_way(key.direction, &tally);
            }
        }
        Ok(counted)
    }

    fn status(&mut self, sums: &Counted) -> Result<wire::Status, DataplaneError> {
        self.interfaces.read_devices();
        let counters = self.dataplane.counters()?;
        let interfaces = self
            .interfaces
            .iter()
            .map(|(ifindex, watched)| {
                let flows = sums.by_interface.get(&ifindex).copied().unwrap_or_default();
                let mut over = Counters::default();
                for (bucket, sum) in &sums.overflow {
                    if bucket.ifindex == ifindex {
                        over += *sum;
                    }
                }
                let mut status = interface_status(ifindex, watched, flows, over, &counters);
                if watched.attachment.is_some() {
                    let programs = |direction| {
                        programs(self.dataplane.hanging(ifindex, &watched.name, direction))
                    };
                    status.ingress = programs(Direction::Ingress);
                    status.egress = programs(Direction::Egress);
                }
                status
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
                entries: sums.entries,
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
                keeper_error: self.keeper_error.as_ref().map(|(error, _)| error.clone()),
                keeper_failing_since: self.keeper_error.as_ref().map(|(_, ms)| Timestamp(*ms)),
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

    fn metrics(
        &mut self,
        sums: &Counted,
        unrecorded: &Unrecorded,
    ) -> Result<Arc<Metrics>, DataplaneError> {
        let status = self.status(sums)?;
        let peers = Arc::new(self.peer_list(sums));
        let buckets = self.pending_overflow(&sums.overflow)?;
        let Self { recorder, peers: who, interfaces, .. } = self;
        // In the order of the list, so that the same peers have series after every start.
        for peer in peers.iter() {
            recorder
                .tallies
                .introduce(&peer.interface.as_str().into(), &peer.identity.clone().into());
        }
        for ((ifindex, peer, verdict), counters) in unrecorded.iter() {
            let name = interfaces.name(*ifindex);
            let name = name.unwrap_or_else(|| format!("ifindex {ifindex}").into());
            recorder.tallies.pend(&name, who.identity(*peer).as_ref(), *verdict, *counters);
        }
        for bucket in buckets {
            let Record { interface, peer, verdict, counters, .. } = bucket;
            recorder.tallies.pend(&interface, peer.as_ref(), verdict, counters);
        }
        Ok(Arc::new(Metrics {
            status,
            drains: self.durations,
            is_behind: self.is_behind,
            write_failures: self.recorder.failures,
            peers,
            traffic: self.recorder.tallies.take(),
        }))
    }

    fn peer_list(&self, sums: &Counted) -> Vec<wire::Peer> {
        let mut overflow: HashMap<PeerId, Counters> = HashMap::new();
        for (bucket, sum) in &sums.overflow {
            *overflow.entry(bucket.peer).or_default() += *sum;
        }
        let mut list = Vec::new();
        for (ifindex, watched) in self.interfaces.iter().filter(|(_, w)| w.attachment.is_some()) {
            for peer in &watched.now.peers {
                let Some(id) = self.peers.id(ifindex, &peer.public_key) else {
                    continue;
                };
                let Some(identity) = self.peers.identity(id) else {
                    continue;
                };
                let (open_flows, mut counters) = sums.by_peer.get(&id).copied().unwrap_or_default();
                counters += overflow.get(&id).copied().unwrap_or_default();
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
        list
    }
}

/// Shows an open flow or a bucket to every question, and what it moved to those about rates.
fn visit(questions: &mut [Walking], gateway: &str, record: &Record, moved: Option<Counters>) {
    for question in questions {
        match moved {
            Some(moved) if question.is_of_rates() => question.measure(record, moved),
            _ => question.visit(gateway, record),
        }
    }
}

fn programs(hanging: Vec<Hanging>) -> Vec<wire::ProgramStatus> {
    let status = |Hanging { id, name, is_own }| wire::ProgramStatus { id, name, own: is_own };
    hanging.into_iter().map(status).collect()
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
        ingress: Vec::new(),
        egress: Vec::new(),
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
