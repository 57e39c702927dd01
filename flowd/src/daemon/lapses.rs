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
    audit::{Actor, Event, Outcome, word},
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
        self.settle_coverage();
        self.write_gaps();
    }

    /// A drain begins.
    pub(super) fn heed_the_clocks(&mut self) {
        for Irregularity { what, from_ms, to_ms, detail } in self.pulse.beat(Reading::now()) {
            if what == What::Late {
                let at = At::everywhere(Stage::Drain);
                self.gaps.open(at, from_ms, detail);
                self.gaps.close(at, to_ms, Bound::NOTHING);
                continue;
            }
            let event = Event::auto(now_ms(), word::CLOCK_STEPPED).with("detail", &*detail);
            self.teller.tell(event.with("from_ms", from_ms).with("to_ms", to_ms));
            self.gaps.note(Gap {
                gap_id: 0,
                stage: Stage::Clock,
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
            let event = Event::new(now_ms(), word::SEGMENT_SET_ASIDE, Actor::Auto, Outcome::Failed);
            let file = aside.file.as_ref().map(|file| file.display().to_string());
            self.teller.tell(event.on(&*aside.day).with("file", file).with("why", &*aside.why));
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

#[cfg(test)]
mod tests {
    use flowd_common::{counter::Direction, memory::InterfaceNote};

    use super::{
        Arc, At, BTreeMap, Bound, Counter, CounterKey, Counters, FullTable, Gaps, Interfaces,
        Stage, Tally,
    };

    /// So many packets of 100 bytes found the table full, each way.
    fn counters(ifindex: u32, rx: u64, tx: u64) -> Vec<(CounterKey, Tally)> {
        let one = |counter: Counter, direction: Direction, packets| {
            let (counter, direction) = (counter as u8, direction as u8);
            let key = CounterKey { ifindex, counter, direction, reserved: [0; 2] };
            (key, Tally { packets, bytes: packets * 100 })
        };
        vec![
            one(Counter::TableFull, Direction::Ingress, rx),
            one(Counter::TableFull, Direction::Egress, tx),
            one(Counter::Dropped, Direction::Egress, 99),
        ]
    }

    fn interfaces() -> Interfaces {
        let mut name = [0; 16];
        name[..3].copy_from_slice(b"wg0");
        let note = InterfaceNote { name, since_ms: 0, baseline: [0; 4], device: [0; 4] };
        let mut interfaces = Interfaces::default();
        interfaces.remember(&[(7, note), (8, note)]);
        interfaces
    }

    fn bound(gaps: &Gaps) -> Option<Bound> {
        gaps.lasting().next().map(|gap| gap.bound)
    }

    #[test]
    fn a_table_is_full_from_the_drain_in_which_it_grows_until_one_in_which_it_does_not() {
        let (wg0, interfaces): (Arc<str>, _) = ("wg0".into(), interfaces());
        let at = At::interface(Stage::TableFull, &wg0);
        let (mut table, mut gaps) = (FullTable::default(), Gaps::default());
        let cases = [
            // counters of either number of the interface, the open gap's bound
            ((0, 0), (0, 0), None),
            ((2, 1), (0, 0), Some(Bound::of(3, 300))),
            ((2, 1), (5, 0), Some(Bound::of(8, 800))),
            ((2, 1), (5, 0), None),
            ((2, 2), (5, 0), Some(Bound::of(9, 900))),
        ];
        for (round, ((rx, tx), (other_rx, other_tx), expected)) in cases.into_iter().enumerate() {
            let mut now = counters(7, rx, tx);
            now.extend(counters(8, other_rx, other_tx));
            let from_ms = 1_000 * round as i64;
            table.look(&now, &interfaces, (from_ms, from_ms + 1_000), &mut gaps);
            assert_eq!((bound(&gaps), gaps.is_open(at)), (expected, expected.is_some()), "{round}");
        }
    }

    #[test]
    fn a_new_daemon_tells_what_the_one_before_has_not_recorded() {
        let (interfaces, now) = (interfaces(), counters(7, 60, 40));
        let pending = |packets| {
            let rx =
                Counters { rx_packets: packets, rx_bytes: packets * 100, ..Counters::default() };
            BTreeMap::from([(7, rx)])
        };
        let cases = [
            // packets of overflow that are not recorded, the bound that is told
            (0, None),
            (30, Some(Bound::of(30, 3_000))),
            // Some of them were judged apart from their flows.
            (500, Some(Bound::of(100, 10_000))),
        ];
        for (unrecorded, expected) in cases {
            let mut gaps = Gaps::default();
            let mut table = FullTable::adopted(&now, &pending(unrecorded));
            table.look(&now, &interfaces, (0, 1_000), &mut gaps);
            assert_eq!(bound(&gaps), expected, "{unrecorded}");
        }
    }
}
