//! What every open flow moved between two looks at the kernel's table, while somebody watches.
//!
//! - a look is a walk over the table for questions about rates
//! - a flow that the look before has not seen has moved all that it counts
//! - some 60 bytes a flow are kept, and go when nobody has asked for a minute

use std::{
    hash::BuildHasher as _,
    time::{Duration, Instant},
};

use hashbrown::DefaultHashBuilder;

use super::dense::DenseMap;
use crate::flows::{Counters, Record};

/// How long the last look is worth keeping.
const KEPT: Duration = Duration::from_secs(60);

/// The last look, and the one that is being taken.
#[derive(Default)]
pub(super) struct Meter {
    marks: DenseMap<u64, Mark>,
    hasher: DefaultHashBuilder,
    look: u32,
    /// When the last look was taken.
    taken: Option<Instant>,
    /// Between the last look and the one before; `None`: there was none.
    interval: Option<Duration>,
}

/// What a flow had counted at a look.
#[derive(Clone, Copy)]
struct Mark {
    total: Counters,
    look: u32,
    is_overflow: bool,
}

impl Meter {
    /// Begins a look.
    pub(super) fn begin(&mut self, now: Instant) {
        self.interval = self.taken.map(|taken| now.saturating_duration_since(taken));
        self.taken = Some(now);
        self.look = self.look.wrapping_add(1);
    }

    /// What a flow moved since the look before; nothing at the first look. Each is asked for once a
    /// look.
    pub(super) fn moved(&mut self, record: &Record) -> Counters {
        let Self { marks, hasher, look, interval, taken: _ } = self;
        let key = hasher.hash_one((record.tuple, record.entry, record.overflow));
        let total = record.total;
        let before = marks.get(&key).map(|mark| mark.total);
        let mark = Mark { total, look: *look, is_overflow: record.overflow };
        marks.insert(key, mark);
        match before {
            _ if interval.is_none() => Counters::default(),
            Some(before) if before.are_within(&total) => total - before,
            // A bucket without news is in no look; what is recorded of it may be old.
            None if record.overflow => record.counters,
            _ => total,
        }
    }

    /// Ends a look: forgets the flows that were not in it.
    pub(super) fn end(&mut self) {
        let look = self.look;
        self.marks.retain(|mark| mark.look == look || mark.is_overflow);
    }

    /// How long the flows had for what they moved.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Forgets everything when nobody has asked for long.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.taken.is_some_and(|taken| now.saturating_duration_since(taken) > KEPT) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counters, KEPT, Meter, Record};
    use crate::flows::sample;

    fn flow(port: u16, packets: u64) -> Record {
        let mut record = sample::record();
        record.tuple.peer_port = port;
        record.total = Counters { rx_packets: packets, rx_bytes: packets * 100, ..record.total };
        record.counters = Counters { rx_packets: 1, rx_bytes: 100, ..Counters::default() };
        record
    }

    /// Packets that each flow moved, by the look at `second`.
    fn look(meter: &mut Meter, start: Instant, second: u64, flows: &[Record]) -> Vec<u64> {
        meter.begin(start + Duration::from_secs(second));
        let moved = flows.iter().map(|flow| meter.moved(flow).packets()).collect();
        meter.end();
        moved
    }

    #[test]
    fn a_flow_has_moved_what_it_counts_more_than_at_the_look_before() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let total = sample::record().total.tx_packets;
        assert_eq!(look(&mut meter, start, 0, &[flow(1, 5)]), [0], "there is no look before");
        assert_eq!(meter.interval(), None);
        assert_eq!(look(&mut meter, start, 2, &[flow(1, 7), flow(2, 3)]), [2, 3 + total]);
        assert_eq!(meter.interval(), Some(Duration::from_secs(2)));
        assert_eq!(look(&mut meter, start, 3, &[flow(2, 3)]), [0]);
        assert_eq!(meter.marks.len(), 1, "what has gone is forgotten");
        let again = look(&mut meter, start, 4, &[flow(1, 1), flow(2, 1)]);
        assert_eq!(again, [1 + total, 1 + total], "less than before is another one");
    }

    #[test]
    fn a_bucket_that_was_quiet_for_some_looks_has_moved_its_news_only() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let bucket = |packets| Record { overflow: true, ..flow(1, packets) };
        look(&mut meter, start, 0, &[]);
        assert_eq!(look(&mut meter, start, 1, &[bucket(900)]), [1]);
        assert_eq!(look(&mut meter, start, 2, &[]), [0; 0]);
        assert_eq!(look(&mut meter, start, 3, &[bucket(904)]), [4]);
    }

    #[test]
    fn it_rests_when_nobody_asks() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        look(&mut meter, start, 0, &[flow(1, 5)]);
        meter.rest(start + KEPT);
        assert_eq!(meter.marks.len(), 1);
        meter.rest(start + KEPT + Duration::from_secs(1));
        assert_eq!((meter.marks.len(), meter.interval()), (0, None));
        assert_eq!(look(&mut meter, start, 100, &[flow(1, 9)]), [0]);
    }
}
