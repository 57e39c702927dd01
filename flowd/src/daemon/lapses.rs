//! What the drain thread notices itself: clocks that jump, a table that is full, a store that
//! fails; and the gaps of the daemon before, which go on or end.

use std::{collections::BTreeMap, sync::Arc};

use flowd_common::counter::{Counter, CounterKey, Tally};

use super::{
    collector::{Collector, now_ms},
    gaps::{At, Gaps},
    interfaces::Interfaces,
    overflow::by_bucket,
    pulse::{Irregularity, Reading, What},
};
use crate::{
    dataplane::DataplaneError,
    flows::{Bound, Counters, Gap, Stage},
};

/// How many packets found the flow table full, by interface: at the last look.
#[derive(Debug, Default)]
pub(super) struct FullTable {
    seen: BTreeMap<u32, Tally>,
}

impl FullTable {
    /// What the daemon before saw of tables that go on: all but what it did not record, which is
    /// told again rather than not at all.
    fn adopted(counters: &[(CounterKey, Tally)], unrecorded: &BTreeMap<u32, Counters>) -> Self {
        let mut seen = sums(counters);
        for (ifindex, sum) in &mut seen {
            let pending = unrecorded.get(ifindex).copied().unwrap_or_default();
            sum.packets -= pending.packets().min(sum.packets);
            sum.bytes -= pending.bytes().min(sum.bytes);
        }
        Self { seen }
    }

    /// Takes the counters as they are now; what grew opens or feeds a gap, what did not ends it.
    fn look(
        &mut self,
        counters: &[(CounterKey, Tally)],
        interfaces: &Interfaces,
        (from_ms, now_ms): (i64, i64),
        gaps: &mut Gaps,
    ) {
        let sums = sums(counters);
        // An interface that was made anew has two numbers.
        let mut grown: BTreeMap<Arc<str>, Bound> = BTreeMap::new();
        for (ifindex, now) in &sums {
            let Some(name) = interfaces.name(*ifindex) else { continue };
            let before = self.seen.get(ifindex).copied().unwrap_or_default();
            let packets = now.packets.saturating_sub(before.packets);
            let more = Bound::of(packets, now.bytes.saturating_sub(before.bytes));
            let sum = grown.entry(name).or_insert(Bound::NOTHING);
            *sum = sum.and(more);
        }
        for (name, more) in &grown {
            let at = At::interface(Stage::TableFull, name);
            if *more == Bound::NOTHING {
                gaps.close(at, now_ms, Bound::NOTHING);
            } else {
                gaps.open(at, from_ms, "the flow table was full: raise `flows.table_size`");
                gaps.grow(at, *more);
            }
        }
        self.seen = sums;
    }
}

/// Packets that found the flow table full, by interface.
fn sums(counters: &[(CounterKey, Tally)]) -> BTreeMap<u32, Tally> {
    let mut sums: BTreeMap<u32, Tally> = BTreeMap::new();
    for (key, tally) in counters {
        if key.counter == Counter::TableFull as u8 {
            let sum = sums.entry(key.ifindex).or_default();
            sum.packets += tally.packets;
            sum.bytes += tally.bytes;
        }
    }
    sums
}

impl Collector {
    /// Takes over the gaps that lasted when the daemon before ended, and the tables' counters.
    /// Before anything is attached, which may end them.
    pub(super) fn resume_gaps(&mut self) -> Result<(), DataplaneError> {
        let left = self.recorder.open_gaps();
        self.gaps.resume(left);
        let unrecorded = self.overflow.unrecorded(&by_bucket(&self.dataplane.overflow()?));
        self.full_table = FullTable::adopted(&self.dataplane.counters()?, &unrecorded);
        Ok(())
    }

    /// Ends the gaps of the daemon before that cannot go on. After everything is attached.
    pub(super) fn settle_gaps(&mut self) {
        let now_ms = now_ms();
        let over: Vec<(Stage, Option<Arc<str>>)> = self
            .gaps
            .lasting()
            .filter(|gap| match gap.stage {
                // From here on this daemon tells, and what its absence left out has a gap of its
                // own.
                Stage::Store | Stage::TableFull | Stage::Interface => true,
                Stage::Detached | Stage::Attach => {
                    let name = gap.interface.as_deref().unwrap_or_default();
                    !self.interfaces.iter().any(|(_, watched)| *watched.name == *name)
                }
                _ => false,
            })
            .map(|gap| (gap.stage, gap.interface.clone()))
            .collect();
        for (stage, interface) in over {
            let more = match stage {
                Stage::Detached | Stage::Attach => Bound::UNKNOWN,
                _ => Bound::NOTHING,
            };
            match &interface {
                Some(name) => self.gaps.close(At::interface(stage, name), now_ms, more),
                None => self.gaps.close(At::everywhere(stage), now_ms, more),
            }
        }
        self.write_gaps();
    }

    /// A drain begins.
    pub(super) fn heed_the_clocks(&mut self) {
        for Irregularity { what, from_ms, to_ms, detail } in self.pulse.beat(Reading::now()) {
            let stage = match what {
                What::Late => Stage::Drain,
                What::Stepped => Stage::Clock,
            };
            self.gaps.note(Gap {
                gap_id: 0,
                stage,
                interface: None,
                peer: None,
                opened_ms: from_ms,
                closed_ms: Some(to_ms),
                bound: Bound::NOTHING,
                detail,
            });
        }
    }

    /// Looks whether packets found the flow table full since the last drain.
    pub(super) fn heed_the_table(&mut self) -> Result<(), DataplaneError> {
        let counters = self.dataplane.counters()?;
        let now_ms = now_ms();
        let from_ms = self.drains.last.map_or(self.started_ms, |last| last.0);
        let Self { full_table, interfaces, gaps, .. } = self;
        full_table.look(&counters, interfaces, (from_ms, now_ms), gaps);
        Ok(())
    }

    /// A drain has ended: tells whether the store took everything, and gives it the gaps.
    pub(super) fn heed_the_store(&mut self) {
        let at = At::everywhere(Stage::Store);
        match &self.recorder.error {
            Some(trouble) => self.gaps.open(at, now_ms(), trouble.text.clone()),
            None => self.gaps.close(at, now_ms(), Bound::NOTHING),
        }
        for aside in self.recorder.newly_set_aside() {
            self.gaps.note(Gap {
                gap_id: 0,
                stage: Stage::Database,
                interface: None,
                peer: None,
                opened_ms: aside.from_ms(),
                closed_ms: Some(aside.to_ms()),
                bound: Bound::UNKNOWN,
                detail: aside.to_string(),
            });
        }
        self.write_gaps();
    }

    /// Gives the store what it does not have yet; it says itself when it fails.
    pub(super) fn write_gaps(&mut self) {
        let Self { gaps, recorder, .. } = self;
        let now_ms = now_ms();
        let _kept_for_later = gaps.write(now_ms, |batch| recorder.put_gaps(now_ms, batch));
    }

    /// flowd stops: an interface that has not come back is not waited for.
    pub(super) fn end_gaps(&mut self) {
        let gone: Vec<_> =
            self.gaps.lasting().filter(|gap| gap.stage == Stage::Interface).collect();
        let gone: Vec<Arc<str>> = gone.iter().filter_map(|gap| gap.interface.clone()).collect();
        for name in gone {
            self.gaps.close(At::interface(Stage::Interface, &name), now_ms(), Bound::NOTHING);
        }
        self.write_gaps();
    }
}
