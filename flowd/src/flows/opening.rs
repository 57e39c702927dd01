//! Which record stands for its flow where flows are counted without remembering any.

use super::Record;

/// The begin of what a query asks for: of the matching records of a flow, exactly one is the first.
///
/// The windows of a flow follow each other without a hole and its bytes only grow, so a record
/// tells by itself whether the one before it was asked for too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Unix milliseconds; the start of the range.
    pub since_ms: i64,
    /// As in [`super::Filter::min_bytes`].
    pub min_bytes: u64,
}

impl From<i64> for Opening {
    /// Of a range that starts at `since_ms`, with flows of any size.
    fn from(since_ms: i64) -> Self {
        Self { since_ms, min_bytes: 0 }
    }
}

impl Opening {
    /// Whether this record, which is asked for, is the first of its flow that is.
    pub fn is(&self, record: &Record) -> bool {
        let before = record.total.bytes() - record.counters.bytes();
        record.opens_range(self.since_ms) || before < self.min_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Opening;
    use crate::flows::{Counters, Filter, Record, sample};

    proptest! {
        #[test]
        fn one_of_the_records_that_match_opens(
            windows in prop::collection::vec((0_i64..5, 0_u64..4), 1..12),
            since_ms in prop::option::of(-1_i64..40),
            min_bytes in prop::option::of(0_u64..30),
        ) {
            let (mut at, mut total) = (0, Counters::default());
            let records: Vec<Record> = windows.iter().enumerate().map(|(index, (length, packets))| {
                // A flow begins with a packet.
                let tx_packets = packets + u64::from(index == 0);
                let counters = Counters { tx_packets, tx_bytes: 3 * tx_packets, ..total - total };
                total += counters;
                let (window_start_ms, window_end_ms) = (at, at + length);
                at += length;
                let first_seen_ms = 0;
                Record { window_start_ms, window_end_ms, first_seen_ms, counters, total, ..sample::record() }
            }).collect();
            let filter = Filter { since_ms, min_bytes, ..Filter::default() };
            let opening: Opening = filter.opening();
            let matching: Vec<_> = records.iter().filter(|record| filter.matches(record)).collect();
            let opens: Vec<_> = matching.iter().map(|record| opening.is(record)).collect();
            // Windows without length may share an instant with the start of the range.
            let openers = opens.iter().filter(|opens| **opens).count();
            let has_match = usize::from(!matching.is_empty());
            prop_assert!(openers == has_match, "{openers} {matching:?}");
        }
    }
}
