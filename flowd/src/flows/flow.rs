//! One flow as readers see it: its records merged.

use super::{Counters, Record};

/// A flow in a time range: what its records in the range add up to, and its newest state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The newest record; its `counters` are those of its own window.
    pub newest: Record,
    /// In the range.
    pub counters: Counters,
    /// Earliest window start in the range.
    pub window_start_ms: i64,
    /// Records merged so far, the live remainder included.
    pub records: u64,
}

impl Flow {
    /// A flow of one record.
    pub fn new(record: Record) -> Self {
        let mut flow = Self::empty(&record);
        flow.absorb(record);
        flow
    }

    /// The flow of a record, without what the record counts.
    pub fn empty(record: &Record) -> Self {
        Self {
            counters: Counters::default(),
            window_start_ms: record.window_start_ms,
            records: 0,
            newest: record.clone(),
        }
    }

    /// Adds a record of the same flow, in any order.
    pub fn absorb(&mut self, record: Record) {
        self.merge(Self {
            counters: record.counters,
            window_start_ms: record.window_start_ms,
            records: 1,
            newest: record,
        });
    }

    /// Adds other records of the same flow, in any order.
    pub fn merge(&mut self, other: Self) {
        let Self { newest: record, counters, window_start_ms, records } = other;
        self.counters += counters;
        self.window_start_ms = self.window_start_ms.min(window_start_ms);
        self.records += records;
        let newer = (record.window_end_ms, record.end_reason.is_some(), record.total.packets())
            >= (
                self.newest.window_end_ms,
                self.newest.end_reason.is_some(),
                self.newest.total.packets(),
            );
        if newer {
            self.newest = record;
        }
    }
}
