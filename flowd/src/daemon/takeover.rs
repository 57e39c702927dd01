//! Going on from the daemon before.
//!
//! - its tables are gone on with, where they have this layout and size: flows, their numbers and
//!   what they were judged by stay what they were, and the store's ledger says what of them is
//!   recorded
//! - other tables are replaced: the open flows are put into new ones, with nothing counted; each
//!   program is replaced in one instant; when the last packet has left the old programs, what they
//!   counted is recorded, and their tables are removed
//! - tables of which nobody knows what is recorded are replaced in the same way, and go unrecorded:
//!   their counts may be in the segment that was set aside
//! - what only the ledger knows of has been lost with the kernel's tables: it ends
//!
//! A policy that is enforced has no hole meanwhile.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::ControlFlow,
    sync::Arc,
};

use flowd_common::{
    flow::{CUT, FlowKey, FlowValue, RETIRED},
    packet::is_icmp_error,
};

use super::{
    DaemonError,
    anchors::Anchors,
    collector::{Collector, now_ms},
    cut::{now, renewed},
    ledger::{Open, entry, total, tuple},
    overflow::{OpenBucket, OverflowLedger, by_bucket},
    pulse::STEP_MS,
    settling::remove,
    startup::Inherited,
    verdicts::Revision,
};
use crate::{
    dataplane::{DataplaneError, Notes, OldTables, Tables},
    flows::{Bound, Counters, EndReason, Gap, Stage},
    store::{EntryId, State},
    wireguard,
};

/// How often the books are begun under traffic until nothing came in between.
const BOOKS_TRIES: u32 = 20;

/// What the ledger has of entries that are not found yet: when the last record ended, and what was
/// recorded.
#[derive(Default)]
pub(super) struct Inheritance {
    pub(super) rows: HashMap<EntryId, Row>,
    /// Entries that need only be deleted.
    pub(super) ended: HashSet<EntryId>,
    /// To be drained and removed.
    pub(super) old: Vec<OldTables>,
    /// The name of those that are gone on with.
    pub(super) tables: Option<String>,
    /// How the entries end that are in none of the kernel's tables; `None` when they have.
    pub(super) lost: Option<EndReason>,
}

pub(super) struct Row {
    pub(super) first_seen_ms: i64,
    pub(super) window_end_ms: i64,
    pub(super) recorded: Counters,
}

impl From<Row> for OpenBucket {
    fn from(row: Row) -> Self {
        let Row { first_seen_ms, window_end_ms, recorded } = row;
        Self { first_seen_ms, window_start_ms: window_end_ms, recorded }
    }
}

impl Collector {
    /// The first [`Self::update`]: nothing is attached before the policy is in force.
    pub(super) fn begin(
        &mut self,
        found: Vec<wireguard::Interface>,
        gateway: BTreeSet<IpAddr>,
        inherited: Inherited,
        policy_file: Option<String>,
    ) -> Result<(), DaemonError> {
        let failed = |error: DataplaneError| DaemonError::TakeOver(error.to_string());
        let Inherited { tables, are_adopted, is_lost, notes, old, boot_id } = inherited;
        let before =
            self.recorder.state().map_err(|error| DaemonError::Leftovers(error.to_string()))?;
        // What hangs in the kernel is of this boot.
        let is_same_boot = is_lost || before.boot_id.as_deref() == Some(&boot_id);
        let went_on = is_same_boot && (are_adopted || !old.is_empty());
        self.remember(&notes).map_err(failed)?;
        failpoint!("remembered");
        self.interfaces.watched_until(before.alive_ms.filter(|_| went_on));
        self.overflow = OverflowLedger::of(tables.as_ref().map_or(0, Tables::number));
        // Tables that come before those of the ledger have been drained.
        let settled = tables.as_ref().zip(before.tables.as_deref());
        let settled = settled.and_then(|(tables, name)| tables.number_beside(name));
        let settled = settled.filter(|_| is_same_boot);
        let tables = tables.as_ref().map(Tables::name);
        let mut inheritance = Inheritance { old, tables: tables.clone(), ..Inheritance::default() };
        self.read_ledger(&mut inheritance)?;
        if is_same_boot {
            inheritance.ended.clone_from(&before.ended);
            self.restore(&mut inheritance).map_err(failed)?;
        }
        let mut state = before.clone();
        state.boot_id = Some(boot_id);
        state.is_clean = false;
        if settled.is_none() {
            state.finished.clear();
            state.tables = tables;
        }
        self.finished.clone_from(&state.finished);
        self.recorder.set_state(now_ms(), state);
        failpoint!("taken-over");

        self.peers.update(&found, gateway.clone());
        self.put_into_force().map_err(DaemonError::NotInForce)?;
        failpoint!("put-into-force");
        if are_adopted {
            self.judge_open_flows().map_err(failed)?;
        }
        if let Some(text) = policy_file
            && !self.take_policy_file(&text)
            && self.verdicts.revision() == 0
        {
            let file = self.config.policy_file.display();
            return Err(DaemonError::NotInForce(format!("{file} cannot be used; see above")));
        }
        let (drained, old): (Vec<_>, Vec<_>) = std::mem::take(&mut inheritance.old)
            .into_iter()
            .partition(|old| settled.is_some_and(|settled| old.number() < settled));
        drained.into_iter().for_each(remove);
        inheritance.old = old;
        if !inheritance.old.is_empty() {
            self.seed(&mut inheritance.old).map_err(failed)?;
            failpoint!("seeded");
        }
        self.end_flows_of_others(&found).map_err(failed)?;
        self.resume_gaps().map_err(failed)?;
        let noted_since_ms = self.interfaces.noted_since_ms();
        self.update(found, gateway);
        failpoint!("attached");
        // A segment always knows its boot: there was no store any more.
        if before == State::default()
            && let Some(since_ms) = noted_since_ms
        {
            self.tell_of_no_store(since_ms);
            self.begin_books().map_err(failed)?;
        }
        self.tell_of_the_clock(&before);
        if is_lost {
            self.dataplane.wait_for_classifiers().map_err(failed)?;
            inheritance.old.drain(..).for_each(remove);
            self.begin_books().map_err(failed)?;
            tracing::error!("what was counted and is not known to be recorded is in no record");
        }
        // A ledger that is lost has a gap of its own.
        if !went_on || (is_lost && !before.is_lost()) {
            self.tell_of_absence(&before, is_same_boot);
        }
        self.settle_gaps();
        let lost = if is_same_boot { EndReason::Shutdown } else { EndReason::Reboot };
        inheritance.lost = Some(lost);
        self.inheritance = inheritance;
        self.settle().map_err(failed)
    }

    /// Tells that nothing counted since the daemon before.
    fn tell_of_absence(&mut self, before: &State, is_same_boot: bool) {
        let Some(alive_ms) = before.alive_ms else { return };
        let (stage, detail) = if is_same_boot {
            (Stage::Daemon, "no daemon ran, and no program counted")
        } else {
            (Stage::Reboot, "the gateway restarted, and the kernel's tables were lost")
        };
        // What a flow did since its last record is lost too, unless all was recorded at the end.
        let timeout_ms = i64::try_from(self.config.active_timeout.as_millis()).unwrap_or(i64::MAX);
        let unrecorded_ms = if before.is_clean { 0 } else { timeout_ms };
        let now_ms = now_ms();
        self.gaps.note(Gap {
            gap_id: 0,
            stage,
            interface: None,
            peer: None,
            opened_ms: alive_ms.saturating_sub(unrecorded_ms).min(now_ms),
            closed_ms: Some(now_ms),
            bound: Bound::UNKNOWN,
            detail: detail.to_owned(),
        });
    }

    /// Tells that the daemon before was there at a time that has not come yet.
    fn tell_of_the_clock(&mut self, before: &State) {
        let now_ms = now_ms();
        let Some(alive_ms) = before.alive_ms.filter(|alive_ms| alive_ms - now_ms > STEP_MS) else {
            return;
        };
        self.gaps.note(Gap {
            gap_id: 0,
            stage: Stage::Clock,
            interface: None,
            peer: None,
            opened_ms: now_ms,
            closed_ms: Some(alive_ms),
            bound: Bound::NOTHING,
            detail: "the wall clock was set back while flowd was down".to_owned(),
        });
    }

    /// Tells that the database is gone which had the records since `since_ms`.
    fn tell_of_no_store(&mut self, since_ms: i64) {
        let now_ms = now_ms();
        self.gaps.note(Gap {
            gap_id: 0,
            stage: Stage::Database,
            interface: None,
            peer: None,
            opened_ms: since_ms.min(now_ms),
            closed_ms: Some(now_ms),
            bound: Bound::UNKNOWN,
            detail: "the database was removed while flowd was down: what the kernel still has is \
                     recorded again"
                .to_owned(),
        });
    }

    /// Ends the flows of interfaces that are gone and whose numbers others have now. Before anything
    /// is attached to those.
    fn end_flows_of_others(
        &mut self,
        found: &[wireguard::Interface],
    ) -> Result<(), DataplaneError> {
        let dataplane = &self.dataplane;
        let hangs = |name: &str, ifindex| dataplane.has_programs(name, ifindex);
        let reused = self.interfaces.reused(found, hangs);
        if reused.is_empty() {
            return Ok(());
        }
        let line = self.time_line()?;
        loop {
            let mut ending = Vec::new();
            let Self { dataplane, ledger, peers, .. } = self;
            dataplane.for_each_flow(|key, value| {
                if reused.contains(&key.ifindex) {
                    let open = ledger.open(key, value, peers);
                    let reason = open.ending.unwrap_or(EndReason::InterfaceRemoved);
                    // Also when the store does not take it now.
                    ledger.keep(key, Open { ending: Some(reason), ..open });
                    ending.push((*key, reason));
                }
            })?;
            if ending.is_empty() || !self.end(&line, ending)? {
                break;
            }
        }
        let counted = self.counted_by_interface()?;
        for ifindex in reused {
            tracing::info!(ifindex, "another interface has the number of one that is gone");
            self.interfaces
                .begin_another(ifindex, counted.get(&ifindex).copied().unwrap_or_default());
        }
        Ok(())
    }

    /// Begins the books of every interface with what the tables have.
    fn begin_books(&mut self) -> Result<(), DataplaneError> {
        for _ in 0..BOOKS_TRIES {
            self.interfaces.read_devices();
            let counted = self.counted_by_interface()?;
            let of = |ifindex| counted.get(&ifindex).copied().unwrap_or_default();
            if self.interfaces.begin_books(of) {
                break;
            }
        }
        self.interfaces.note(&mut self.dataplane)
    }

    /// Tells once that nothing outlives the daemon.
    pub(super) fn tell_of_pins(&self) {
        if !self.interfaces.are_staying() {
            tracing::warn!(
                pins = %self.config.pins.display(),
                "nothing is counted, and nothing dropped, while flowd is down or restarts: mount the \
                 BPF file system, or set another `datapath.pins`"
            );
        }
    }

    fn remember(&mut self, notes: &Notes) -> Result<(), DataplaneError> {
        let Notes { peers, interfaces, epochs, anchors } = notes;
        self.peers.remember(peers);
        self.interfaces.remember(interfaces);
        self.ledger.anchors = Anchors::remembered(anchors.clone());
        // New tables have none of it yet.
        for (place, anchor) in anchors {
            self.dataplane.notebook().anchor(*place, anchor)?;
        }
        let mut revisions: HashMap<u32, Option<Arc<Revision>>> = HashMap::new();
        for (epoch, number) in epochs {
            let revision = revisions.entry(*number).or_insert_with(|| {
                let read = self.revisions.of(*number);
                read.inspect_err(|error| {
                    tracing::warn!(%error, revision = number, "rules of open flows have no name");
                })
                .ok()
            });
            if let Some(revision) = revision {
                self.verdicts.remember(*epoch, revision.clone());
                self.dataplane.notebook().epoch(*epoch, *number)?;
            }
        }
        self.dataplane.continue_epochs(epochs.iter().map(|(epoch, _)| *epoch).max().unwrap_or(0));
        Ok(())
    }

    /// Reads the ledger of the daemon before.
    fn read_ledger(&mut self, inheritance: &mut Inheritance) -> Result<(), DaemonError> {
        self.recorder
            .for_each_open(|record| {
                let row = Row {
                    first_seen_ms: record.first_seen_ms,
                    window_end_ms: record.window_end_ms,
                    recorded: record.total,
                };
                inheritance.rows.insert((record.tuple, record.entry), row);
                ControlFlow::Continue(())
            })
            .map_err(|error| DaemonError::Leftovers(error.to_string()))
    }

    /// Finds the entries of the kernel's table that the ledger speaks of.
    fn restore(&mut self, inheritance: &mut Inheritance) -> Result<(), DataplaneError> {
        let Self { dataplane, ledger, peers, overflow, .. } = self;
        let Inheritance { rows, ended, .. } = inheritance;
        dataplane.for_each_flow(|key, value| {
            let id = (tuple(key), entry(key, value));
            let row = rows.remove(&id);
            let is_closed = ended.contains(&id);
            if row.is_none() && !is_closed {
                return;
            }
            let mut open = ledger.open(key, value, peers);
            if let Some(row) = row {
                open.first_seen_ms = row.first_seen_ms;
                open.window_start_ms = row.window_end_ms;
                open.recorded = row.recorded;
            }
            if is_closed {
                open.is_closed = true;
                open.recorded = total(value);
                let is_cut = value.marks & CUT != 0;
                open.ending = Some(if is_cut { EndReason::Policy } else { EndReason::Idle });
            }
            ledger.keep(key, open);
        })?;
        for bucket in by_bucket(&dataplane.overflow()?).into_keys() {
            if let Some(row) = rows.remove(&overflow.id(&bucket)) {
                overflow.restore(bucket, row.into());
            }
        }
        Ok(())
    }

    /// Puts the flows that were open into the new table, where it has room for them, those that were
    /// seen last before others. A flow that finds no room is judged anew at its next packet.
    fn seed(&mut self, old: &mut [OldTables]) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let verdicts = &self.verdicts;
        let mut seeds: HashMap<FlowKey, FlowValue> = HashMap::new();
        for old in old {
            old.flows.for_each(|key, value| {
                let has_ended = value.marks & RETIRED != 0 && value.marks & CUT == 0;
                if has_ended || is_icmp_error(key.protocol, value.icmp_type) {
                    return;
                }
                let told = now(verdicts, key, value);
                let seed = FlowValue {
                    last_seen_jiffies: value.last_seen_jiffies,
                    ..renewed(value, told, value.marks & CUT, &line)
                };
                let seen = |seed: &FlowValue| seed.last_seen_jiffies;
                let known = seeds.entry(FlowKey { generation: 0, ..*key }).or_insert(seed);
                if seen(known) < seen(&seed) {
                    *known = seed;
                }
            })?;
        }
        let mut seeds: Vec<_> = seeds.into_iter().collect();
        seeds.sort_unstable_by_key(|(_, seed)| Reverse(seed.last_seen_jiffies));
        let mut flows = 0;
        for (key, value) in &seeds {
            if !self.dataplane.seed(key, value)? {
                break;
            }
            flows += 1;
        }
        tracing::info!(flows, "took over from the flowd before, with other tables");
        if flows < seeds.len() {
            tracing::warn!(
                flows = seeds.len() - flows,
                "the flow table has no room for flows that are open: they begin again at their next \
                 packet, or are counted in buckets; raise `flows.table_size`"
            );
        }
        Ok(())
    }
}
