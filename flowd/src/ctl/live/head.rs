//! What stands above the rows: the daemon, what passes in all, and what may be lost.

use std::collections::{BTreeMap, VecDeque};

use super::rows::a_second;
use crate::{
    ctl::text,
    flows::Counters,
    wire::{Status, Timestamp},
};

/// Looks that the sparkline remembers.
const HISTORY: usize = 240;
/// A table so full is told, in percent.
const NEARLY_FULL: u64 = 90;

/// The daemon as of the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// By the daemon's clock.
    pub(super) now: Timestamp,
    pub(super) title: String,
    /// What all interfaces see in a second; `None`: nobody knows yet.
    pub(super) rate: Option<Counters>,
    /// Bytes a second of the looks so far.
    pub(super) history: VecDeque<u64>,
    pub(super) table: String,
    /// What may be lost, or needs somebody; most urgent first.
    pub(super) losses: Vec<String>,
    /// When a restart of the daemon was noticed.
    pub(super) restarted: Option<Timestamp>,
    before: Option<Before>,
}

/// The look before.
#[derive(Clone, Debug)]
struct Before {
    started: Timestamp,
    now: Timestamp,
    seen: BTreeMap<(String, u32, Timestamp), Counters>,
}

impl Head {
    /// Takes what the daemon says of itself.
    pub(super) fn take(&mut self, status: &Status) {
        let now = Before {
            started: status.started,
            now: status.now,
            seen: status
                .interfaces
                .iter()
                .map(|of| ((of.name.clone(), of.ifindex, of.since), of.seen))
                .collect(),
        };
        let before = self.before.replace(now.clone());
        let is_another = before.as_ref().is_some_and(|before| before.started != now.started);
        if is_another {
            self.restarted = Some(status.now);
        }
        self.rate = before.filter(|_| !is_another).and_then(|before| now.rate(&before));
        if let Some(rate) = self.rate {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(rate.bytes());
        }
        self.now = status.now;
        self.title = format!(
            "flowd {} · up {} · policy {} ({})",
            text::visible(&status.gateway),
            text::duration((status.now.0 - status.started.0).max(0)),
            status.policy.revision,
            text::visible(&status.policy.mode),
        );
        let table = &status.flow_table;
        let percent = table.entries * 100 / table.capacity.max(1);
        self.table = format!(
            "table {} of {} ({percent}%)",
            text::count(table.entries),
            text::count(table.capacity)
        );
        self.losses = losses(status);
    }
}

impl Before {
    /// What was seen since `before`, in a second. An interface that was not there before has begun
    /// since; counters that have gone back say nothing.
    fn rate(&self, before: &Self) -> Option<Counters> {
        let mut moved = Counters::default();
        for (interface, seen) in &self.seen {
            let base = before.seen.get(interface).copied().unwrap_or_default();
            if !base.are_within(seen) {
                return None;
            }
            moved += *seen - base;
        }
        a_second(moved, u64::try_from(self.now.0 - before.now.0).ok())
    }
}

fn losses(status: &Status) -> Vec<String> {
    let mut losses = Vec::new();
    if let Some(error) = &status.store.error {
        losses.push(format!("store fails: {}", text::visible(error)));
    }
    let open: u64 = status.gaps.iter().map(|stage| stage.open).sum();
    if open > 0 {
        let stages: Vec<_> =
            status.gaps.iter().filter(|of| of.open > 0).map(|of| of.stage.word()).collect();
        losses.push(format!("{open} open gaps: {}", stages.join(", ")));
    }
    if status.interfaces.is_empty() {
        losses.push("no WireGuard interface is watched".to_owned());
    }
    for interface in &status.interfaces {
        let name = text::visible(&interface.name);
        if interface.attached_by == "detached" {
            losses.push(format!("{name} is detached"));
        }
        for tally in &interface.uncounted {
            let packets = text::count(tally.counters.packets());
            losses.push(format!("{name}: {packets} packets {}", text::visible(&tally.reason)));
        }
        if interface.overflow.packets() > 0 {
            let packets = text::count(interface.overflow.packets());
            losses.push(format!("{name}: {packets} packets in no flow but summed"));
        }
    }
    let table = &status.flow_table;
    if table.entries * 100 >= table.capacity * NEARLY_FULL && table.capacity > 0 {
        losses.push("the flow table is nearly full".to_owned());
    }
    losses
}
