//! Flows that the policy judges otherwise than before: they end, and what follows them is judged as
//! the same conversation.
//!
//! - the entry is retired and marked as cut, read for the last time, recorded
//! - then it lives again with nothing counted and the new judgement, opened by whoever opened it
//!   before: so a reply that is still under way opens nothing of its own
//! - unless a packet has made the next generation meanwhile, which knows all that

use flowd_common::{
    flow::{CUT, FlowKey, FlowValue, RETIRED},
    limits::RETIRE_BATCH,
    packet::is_icmp_error,
    peer::{NO_PEER, PeerId},
    policy::{Judgement, Wanted, judge},
};

use super::{
    collector::{Collector, now_ms},
    coverage::add_dropped,
    ledger::{View, total},
    settling::add,
    verdicts::Verdicts,
};
use crate::{
    audit::{Event, word},
    dataplane::{Dataplane, DataplaneError, TimeLine, Why},
    flows::{Counters, EndReason, FlowId, Record},
    policy::compile,
    store::{Leaving, Sums},
};

/// Flows that the audit log names; it counts all.
const TOLD: usize = 20;

/// A flow that has ended because the policy changed.
pub(super) struct Cut {
    /// Its last record.
    pub(super) record: Record,
    /// What is said of it now.
    pub(super) now: Judgement,
}

impl Collector {
    /// Compiles the policy in force again when peers, their names or addresses have changed.
    pub(super) fn follow_the_world(&mut self) {
        if self.peers.world() == self.verdicts.world {
            return;
        }
        if let Err(error) = self.put_into_force() {
            if !self.is_outdated {
                tracing::error!(error, "peers and policy stay as they were in the kernel for now");
            }
            self.is_outdated = true;
            return;
        }
        self.is_outdated = false;
        match self.judge_open_flows() {
            Ok(cut) => self.tell_of_cut(&cut),
            Err(error) => tracing::error!(%error, "open flows are judged at their next packet"),
        }
    }

    /// Tells the audit log of flows that ended because they are judged otherwise now.
    pub(super) fn tell_of_cut(&self, cut: &[Cut]) {
        if cut.is_empty() {
            return;
        }
        let gateway = &self.config.gateway;
        let id = |Cut { record, .. }: &Cut| {
            FlowId::new(gateway, &record.interface, &record.tuple, record.first_seen_ms).to_string()
        };
        let denied = cut.iter().filter(|cut| cut.now.is_denied()).count();
        let event = Event::auto(now_ms(), word::POLICY_CUT_FLOWS)
            .with("revision", self.verdicts.revision())
            .with("flows", cut.len())
            .with("denied", denied)
            .with("first", cut.iter().take(TOLD).map(id).collect::<Vec<_>>());
        self.teller.tell(event);
    }

    /// Compiles the policy for the peers as they are, and tells the kernel.
    pub(super) fn put_into_force(&mut self) -> Result<(), String> {
        let (world, revision) = (self.peers.world(), self.verdicts.revision.clone());
        let compiled = compile(&revision.policy, &world, &self.config.limits)
            .map_err(|error| error.to_string())?;
        self.peers.note(self.dataplane.notebook()).map_err(|error| error.to_string())?;
        self.verdicts
            .install(revision, world, compiled, &mut self.dataplane)
            .map_err(|error| error.to_string())
    }

    /// Judges every open flow under the policy in force; ends those that have another outcome, and
    /// returns them. The kernel does the same at a flow's next packet.
    pub(super) fn judge_open_flows(&mut self) -> Result<Vec<Cut>, DataplaneError> {
        let line = self.time_line()?;
        let mut keys = Vec::new();
        let Self { dataplane, verdicts, .. } = self;
        dataplane.for_each_flow(|key, value| {
            let is_cut = if value.marks & RETIRED != 0 {
                value.marks & CUT != 0
            } else {
                // What an error quotes is known to the kernel only.
                let (judged, peer) = now(verdicts, key, value);
                !is_icmp_error(key.protocol, value.icmp_type)
                    // Otherwise the peer has lost the address, which ends the flow by itself.
                    && (peer == value.peer_id || value.peer_id == NO_PEER)
                    && judged.outcome() != value.judgement.outcome()
            };
            if is_cut {
                keys.push(*key);
            }
        })?;
        Ok(self.cut(&line, &keys)?.unwrap_or_default())
    }

    /// Ends flows as cut. `None` when the store does not take their last records: then they stay
    /// retired and are tried again at the next drain.
    pub(super) fn cut(
        &mut self,
        line: &TimeLine,
        keys: &[FlowKey],
    ) -> Result<Option<Vec<Cut>>, DataplaneError> {
        let Self { dataplane, recorder, ledger, peers, interfaces, finished, verdicts, .. } = self;
        let (sessions, has_walked) = (&mut self.sessions, &mut self.has_walked);
        let view = View { line: *line, peers, interfaces, verdicts };
        let mut all = Vec::new();
        for keys in keys.chunks(RETIRE_BATCH as usize) {
            let mut last = Vec::with_capacity(keys.len());
            let mut records = Vec::new();
            let (mut leaving, mut dropped) = (Leaving::default(), Sums::default());
            dataplane.retire(keys, Why::Cut, |key, value| {
                let open = ledger.open(key, value, peers);
                let record = view.record(key, value, &open, Some(EndReason::Policy));
                if !open.is_closed {
                    *leaving.sums.entry((key.ifindex, open.peer)).or_default() += record.total;
                    add_dropped(&mut dropped, (key.ifindex, open.peer), &record);
                    let did_something = record.total != Counters::default();
                    records.extend(did_something.then(|| record.clone()));
                }
                last.push((*key, *value, open, record));
            })?;
            failpoint!("cut-retired");
            if recorder.record_last(line.wall_ms(), records, &leaving).is_err() {
                return Ok(None);
            }
            failpoint!("cut-recorded");
            add(finished, &leaving.sums);
            add(&mut sessions.dropped, &dropped);
            for (key, _, open, record) in &last {
                ledger.keep(key, open.closed(record));
            }
            let ids: Vec<_> = last.iter().map(|(_, _, _, it)| (it.tuple, it.entry)).collect();
            for (key, value, _, record) in last {
                let (now, peer_id) = now(verdicts, &key, &value);
                let next = renewed(&value, (now, peer_id), CUT, line);
                let replaced = replace(dataplane, &key, &next);
                if replaced.is_err() {
                    // The next daemon must know of them too, until a drain has come through.
                    recorder.keep_ended(&ids);
                    *has_walked = false;
                }
                replaced?;
                ledger.close(&key);
                // Not what the other side has opened anew, of which the same is said as before.
                let changed = now.outcome() != value.judgement.outcome();
                if changed && total(&value) != Counters::default() {
                    all.push(Cut { record, now });
                }
            }
        }
        Ok(Some(all))
    }
}

/// Puts the next entry into the place of one that was cut, unless a packet has made it already.
fn replace(
    dataplane: &mut Dataplane,
    key: &FlowKey,
    next: &FlowValue,
) -> Result<(), DataplaneError> {
    let successor = FlowKey { generation: 1 - key.generation, ..*key };
    if dataplane.flow(&successor)?.is_some_and(|value| value.marks & RETIRED == 0) {
        return dataplane.delete(&[*key], |_| {});
    }
    dataplane.revive(key, next)?;
    failpoint!("revived");
    Ok(())
}

/// What the policy in force says of an open flow, and whose it is now.
pub(super) fn now(verdicts: &Verdicts, key: &FlowKey, value: &FlowValue) -> (Judgement, PeerId) {
    let wanted = Wanted::of(value.initiator);
    let opinion = judge(&verdicts.tables, verdicts.head, key, value.icmp_type, wanted);
    (opinion.of(value.initiator), opinion.peer_id)
}

/// The entry of a flow whose counts are recorded, as it goes on: who opened it is remembered.
pub(super) fn renewed(
    value: &FlowValue,
    (judgement, peer_id): (Judgement, PeerId),
    marks: u64,
    line: &TimeLine,
) -> FlowValue {
    let clocks = line.clocks();
    FlowValue {
        first_seen_ns: clocks.monotonic_ns,
        last_seen_jiffies: clocks.jiffies,
        marks,
        judgement,
        peer_id,
        initiator: value.initiator,
        icmp_type: value.icmp_type,
        icmp_code: value.icmp_code,
        ..FlowValue::default()
    }
}
