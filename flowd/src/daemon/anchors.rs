//! Where the wall clock stood when flows were first seen.
//!
//! A flow's first-seen time is part of its name, so it must come out the same whenever it is asked
//! for: by a record, by a reader, by the next daemon. The wall clock is adjusted and set, so the
//! offset of the two clocks is noted, and noted anew only when it has moved.

use flowd_common::{limits::MAX_ANCHORS, memory::Anchor};

use crate::dataplane::TimeLine;

/// The offset may move so far before it is noted again: a clock is slewed by half a millisecond a
/// second at most.
const DRIFT_MS: u64 = 20;

/// The notes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    /// Each with its place in the kernel's table, a ring.
    notes: Vec<(u32, Anchor)>,
}

impl Anchors {
    /// Those of a daemon before.
    pub(super) fn remembered(mut notes: Vec<(u32, Anchor)>) -> Self {
        notes.sort_by_key(|(_, anchor)| anchor.from_ns);
        Self { notes }
    }

    /// What must be noted, and where, when the clocks stand like this.
    pub(super) fn outdated(&self, line: &TimeLine) -> Option<(u32, Anchor)> {
        let now = line.anchor();
        let Some((place, newest)) = self.notes.last() else {
            return Some((0, Anchor { from_ns: 0, ..now }));
        };
        let moved = newest.zero_ms.abs_diff(now.zero_ms) > DRIFT_MS;
        moved.then_some(((place + 1) % MAX_ANCHORS, now))
    }

    /// Takes what has been noted.
    pub(super) fn note(&mut self, place: u32, anchor: Anchor) {
        self.notes.retain(|(taken, _)| *taken != place);
        self.notes.push((place, anchor));
    }

    /// Unix milliseconds of the first packet of a flow.
    pub(super) fn first_seen_ms(&self, first_seen_ns: u64) -> i64 {
        let at_that_time = self.notes.iter().rev().find(|(_, a)| a.from_ns <= first_seen_ns);
        let anchor = at_that_time.or(self.notes.first()).map_or(Anchor::default(), |(_, a)| *a);
        anchor.zero_ms.saturating_add_unsigned(first_seen_ns / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use flowd_common::{clock::Clocks, limits::MAX_ANCHORS};

    use super::Anchors;
    use crate::dataplane::TimeLine;

    const SECOND_NS: u64 = 1_000_000_000;

    fn at(second: u64, wall_ms: i64) -> TimeLine {
        let clocks =
            |second: u64| Clocks { monotonic_ns: second * SECOND_NS, jiffies: second * 250 };
        TimeLine::new(clocks(0), clocks(second), wall_ms).unwrap()
    }

    fn look(anchors: &mut Anchors, line: &TimeLine) -> bool {
        let outdated = anchors.outdated(line);
        if let Some((place, anchor)) = outdated {
            anchors.note(place, anchor);
        }
        outdated.is_some()
    }

    #[test]
    fn the_first_packet_keeps_its_time_whatever_the_wall_clock_does() {
        let mut anchors = Anchors::default();
        assert!(look(&mut anchors, &at(10, 1_000_010_000)));
        assert_eq!(anchors.first_seen_ms(5 * SECOND_NS), 1_000_005_000);
        assert!(!look(&mut anchors, &at(20, 1_000_020_015)), "slewed");
        assert!(look(&mut anchors, &at(30, 5_000_030_000)), "set");
        let told = [(5, 1_000_005_000), (29, 1_000_029_000), (31, 5_000_031_000)];
        for (second, first_seen_ms) in told {
            assert_eq!(anchors.first_seen_ms(second * SECOND_NS), first_seen_ms);
        }
        let next = Anchors::remembered(anchors.notes.iter().rev().copied().collect());
        for (second, first_seen_ms) in told {
            assert_eq!(next.first_seen_ms(second * SECOND_NS), first_seen_ms, "after a restart");
        }
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut anchors = Anchors::default();
        for second in 1..=2 * u64::from(MAX_ANCHORS) {
            assert!(look(&mut anchors, &at(second, 1_000_000 * second as i64)));
        }
        assert_eq!(anchors.notes.len(), MAX_ANCHORS as usize);
        let places: std::collections::BTreeSet<u32> = anchors.notes.iter().map(|n| n.0).collect();
        assert_eq!(places.len(), MAX_ANCHORS as usize);
    }
}
