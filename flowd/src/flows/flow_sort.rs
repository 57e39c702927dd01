//! What a list of flows is sorted by.

use serde::{Deserialize, Serialize};

use super::{Flow, record::words};

words! {
    /// What a list of flows is sorted by.
    FlowSort {
        /// The first packet.
        Start = 0 "start",
        /// The last packet so far.
        Last = 1 "last",
        /// From the first packet to the last.
        Duration = 2 "duration",
        /// Bytes of both directions in the range.
        Bytes = 3 "bytes",
        /// Packets of both directions in the range.
        Packets = 4 "packets",
    }
}

impl FlowSort {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 5] =
        [Self::Start, Self::Last, Self::Duration, Self::Bytes, Self::Packets];

    /// What a flow is sorted by. While a flow goes on, it only grows.
    pub fn value(self, flow: &Flow) -> i64 {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let newest = &flow.newest;
        match self {
            Self::Start => newest.first_seen_ms,
            Self::Last => newest.last_seen_ms,
            Self::Duration => newest.last_seen_ms.saturating_sub(newest.first_seen_ms),
            Self::Bytes => count(flow.counters.bytes()),
            Self::Packets => count(flow.counters.packets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FlowSort;
    use crate::flows::{Flow, sample};

    #[test]
    fn every_word_means_itself_and_a_value_of_a_flow() {
        let flow = Flow::new(sample::record());
        let values = [0, 60_000, 60_000, 180, 3];
        for (sort, value) in FlowSort::ALL.into_iter().zip(values) {
            assert_eq!(FlowSort::from_word(sort.word()), Some(sort));
            assert_eq!(sort.value(&flow), value, "{sort:?}");
        }
    }
}
