//! Taking over from a daemon whose programs stayed: a policy that is enforced has no hole, and the
//! flows that were open stay what they were.
//!
//! - the policy is in force in the new tables, before any program reads them
//! - the old table's flows are put into the new one, with nothing counted: who opened each, and that
//!   it may go on
//! - each program is replaced in one instant
//! - when the last packet has left the old programs, their counts are final and are recorded

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use flowd_common::{
    flow::{CUT, FlowKey, RETIRED},
    packet::is_icmp_error,
    policy::{Judgement, Outcome},
};

use super::{
    DaemonError,
    collector::Collector,
    cut::{now, renewed},
    ledger::{Open, View, total},
    verdicts::Verdicts,
};
use crate::{
    dataplane::{DataplaneError, Predecessor},
    flows::{Counters, EndReason, Record, Tuple, Verdict},
    policy::Mode,
    wireguard,
};

/// How far apart two derivations of a flow's first packet may be: the wall clock is adjusted.
const TOLERANCE_MS: i64 = 2_000;

impl Collector {
    /// The first [`Self::update`]: nothing is attached before the policy is in force.
    pub(super) fn begin(
        &mut self,
        found: Vec<wireguard::Interface>,
        gateway: BTreeSet<IpAddr>,
        mut predecessor: Option<Predecessor>,
        left: Vec<Record>,
        policy_file: Option<String>,
    ) -> Result<(), DaemonError> {
        self.peers.update(&found, gateway.clone());
        self.put_into_force().map_err(DaemonError::NotInForce)?;
        if let Some(text) = policy_file
            && !self.take_policy_file(&text)
            && self.verdicts.revision() == 0
        {
            let file = self.config.policy_file.display();
            return Err(DaemonError::NotInForce(format!("{file} cannot be used; see above")));
        }
        let failed = |error: DataplaneError| DaemonError::TakeOver(error.to_string());
        if let Some(old) = &mut predecessor {
            let flows = self.seed(old).map_err(failed)?;
            tracing::info!(flows, "took over from the flowd before");
        }
        self.update(found, gateway);
        if predecessor.is_some() || !left.is_empty() {
            self.settle(predecessor.as_mut(), left).map_err(failed)?;
        }
        self.keep_in_force();
        Ok(())
    }

    /// Makes the programs stay when the daemon goes, where the policy is enforced.
    pub(super) fn keep_in_force(&mut self) {
        let enforced = self.verdicts.revision.policy.mode == Mode::Enforce;
        if !self.interfaces.stay(enforced, &self.dataplane) {
            tracing::warn!(
                pins = %self.config.pins.display(),
                "nothing is dropped while flowd is down or restarts: mount the BPF file system, or \
                 set another `datapath.pins`"
            );
        }
    }

    /// Puts the flows that were open into the new table.
    pub(super) fn seed(&mut self, old: &mut Predecessor) -> Result<u64, DataplaneError> {
        let line = self.time_line()?;
        let mut seeds = Vec::new();
        let verdicts = &self.verdicts;
        old.for_each(|key, value| {
            let has_ended = value.marks & RETIRED != 0 && value.marks & CUT == 0;
            if has_ended || is_icmp_error(key.protocol, value.icmp_type) {
                return;
            }
            let told = now(verdicts, key, value);
            let seed = renewed(value, told, value.marks & CUT, &line);
            seeds.push((FlowKey { generation: 0, ..*key }, seed));
        })?;
        for (key, value) in &seeds {
            self.dataplane.seed(key, value)?;
        }
        Ok(seeds.len() as u64)
    }

    /// Records what the old programs counted that `left`, the store's ledger, has not: the last
    /// records of the flows that were open.
    pub(super) fn settle(
        &mut self,
        old: Option<&mut Predecessor>,
        left: Vec<Record>,
    ) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let mut left_by_tuple: HashMap<(String, Tuple), Vec<Record>> = HashMap::new();
        for record in left {
            let name = record.interface.to_string();
            left_by_tuple.entry((name, record.tuple)).or_default().push(record);
        }
        let mut last = Vec::new();
        if let Some(old) = old {
            self.dataplane.wait_for_classifiers()?;
            let Self { peers, interfaces, verdicts, .. } = &*self;
            let view = View { line, peers, interfaces, verdicts };
            old.for_each(|key, value| {
                let first_seen_ms = line.monotonic_ms(value.first_seen_ns);
                let open = Open {
                    first_seen_ms,
                    window_start_ms: first_seen_ms,
                    recorded: Counters::default(),
                    peer: peers.owner(key.ifindex, key.peer.into()),
                    ending: None,
                };
                let mut record = view.record(key, value, &open, Some(EndReason::Shutdown));
                let (judged, _) = now(verdicts, key, value);
                describe(&mut record, value.judgement, judged, verdicts);
                let known = left_by_tuple
                    .get_mut(&(record.interface.to_string(), record.tuple))
                    .and_then(|left| {
                        let near = |r: &Record| {
                            (r.first_seen_ms - first_seen_ms).abs() <= TOLERANCE_MS
                                && r.total.packets() <= total(value).packets()
                        };
                        let position = left.iter().position(near)?;
                        Some(left.swap_remove(position))
                    });
                match known {
                    Some(known) => last.push(go_on(known, record)),
                    // Its last record was written, or it did nothing yet.
                    None if value.marks & RETIRED != 0 || total(value) == Counters::default() => {}
                    None => last.push(record),
                }
            })?;
        }
        // What only the store knows of has ended with its table.
        for mut record in left_by_tuple.into_values().flatten() {
            record.end_reason = Some(EndReason::Shutdown);
            last.push(record);
        }
        // Told by the recorder; the ledger keeps what is not recorded.
        let _kept_in_ledger = self.recorder.record(line.wall_ms(), last);
        Ok(())
    }
}

/// The old daemon's numbers of rules mean nothing here; its outcomes do.
fn describe(record: &mut Record, old: Judgement, judged: Judgement, verdicts: &Verdicts) {
    record.verdict = if old.is_denied() { Verdict::Deny } else { Verdict::Allow };
    record.enforced = old.outcome() == Outcome::Dropped;
    let told = verdicts.tell(judged);
    if judged.outcome() == old.outcome() {
        record.rule = told.rule;
        record.policy_revision = told.revision;
    }
}

/// The record that follows the last one of a flow.
fn go_on(known: Record, now: Record) -> Record {
    Record {
        window_start_ms: known.window_end_ms,
        window_end_ms: now.window_end_ms.max(known.window_end_ms),
        first_seen_ms: known.first_seen_ms,
        last_seen_ms: now.last_seen_ms.max(known.last_seen_ms),
        counters: now.total - known.total,
        rule: known.rule,
        policy_revision: known.policy_revision,
        ..now
    }
}
