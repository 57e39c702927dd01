//! One gap: an interval and a stage in which something may have gone unrecorded, and at most how
//! much. A gap is a row, never only a line of a log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Identity, record::words};

words! {
    /// Where on the way of a packet something may be missing, and what the bound of a gap of this
    /// stage means.
    Stage {
        /// No daemon ran and no program was left to count. The bound is the devices' own counters
        /// over the time, where the devices are still the same; else nobody knows.
        Daemon = 1 "daemon",
        /// The gateway was restarted: what was counted since the last drain went with its memory.
        /// Nobody knows how much.
        Reboot = 2 "reboot",
        /// Packets crossed a new interface before flowd hung on it: the device's own counters at
        /// that instant.
        Attach = 3 "attach",
        /// Somebody took a program off the interface: the device's own counters from the last look
        /// at which it hung until it hung again.
        Detached = 4 "detached",
        /// A drain was late. The kernel kept the counts, so the bound is zero: only windows are
        /// longer than they should be.
        Drain = 5 "drain",
        /// The flow table was full. The bound is exact: packets that are in a peer's overflow
        /// record, or in the `overflow_full` counter of status, and in no flow.
        TableFull = 6 "table_full",
        /// The database took no records: disk full, read-only, failing. Zero when all was recorded
        /// afterwards.
        Store = 7 "store",
        /// The interface was gone. Zero: what does not exist carries no packets.
        Interface = 8 "interface",
        /// The wall clock was stepped. Zero: times are uncertain by the step, counts are not.
        Clock = 9 "clock",
        /// A segment could not be used and was set aside under another name, with what it had.
        Database = 10 "database",
        /// What flowd counted for a peer does not explain what WireGuard counted: the difference.
        Coverage = 11 "coverage",
    }
}

impl Stage {
    /// Every stage, by its number.
    pub const ALL: [Self; 11] = [
        Self::Daemon,
        Self::Reboot,
        Self::Attach,
        Self::Detached,
        Self::Drain,
        Self::TableFull,
        Self::Store,
        Self::Interface,
        Self::Clock,
        Self::Database,
        Self::Coverage,
    ];
}

/// At most so much is in no flow's records. Bytes at layer 3, IP header included, except where only
/// a kernel WireGuard device's own counters are known, which are outer bytes and so at least as
/// many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bound {
    /// `None`: nobody knows.
    pub packets: Option<u64>,
    /// `None`: nobody knows.
    pub bytes: Option<u64>,
}

impl Bound {
    /// Nothing is missing.
    pub const NOTHING: Self = Self { packets: Some(0), bytes: Some(0) };
    /// Nobody knows how much.
    pub const UNKNOWN: Self = Self { packets: None, bytes: None };

    /// So much.
    pub const fn of(packets: u64, bytes: u64) -> Self {
        Self { packets: Some(packets), bytes: Some(bytes) }
    }

    /// Both together; what is unknown stays it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        Self { packets: sum(self.packets, other.packets), bytes: sum(self.bytes, other.bytes) }
    }
}

/// One gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Gap-free per gateway from 1; 0 until the store has numbered it.
    pub gap_id: u64,
    /// Where.
    pub stage: Stage,
    /// Of one interface; `None`: of all.
    pub interface: Option<Arc<str>>,
    /// Of one peer; `None`: of all.
    pub peer: Option<Arc<Identity>>,
    /// Unix milliseconds: the last instant at which all was well.
    pub opened_ms: i64,
    /// Unix milliseconds; `None` while it lasts.
    pub closed_ms: Option<i64>,
    /// So far, while it lasts.
    pub bound: Bound,
    /// What happened, in one line.
    pub detail: String,
}

impl Gap {
    /// Whether it and the range from `since_ms` until before `until_ms` have an instant in common.
    pub fn touches(&self, since_ms: i64, until_ms: i64) -> bool {
        self.opened_ms < until_ms && self.closed_ms.is_none_or(|closed_ms| closed_ms >= since_ms)
    }
}

/// How many gaps, and how much they leave uncertain together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GapSum {
    /// How many.
    pub count: u64,
    /// Of these, how many last.
    pub open: u64,
    /// The sum of the bounds that are known.
    pub packets: u64,
    /// The sum of the bounds that are known.
    pub bytes: u64,
    /// Gaps of which nobody knows how many packets are missing.
    pub unknown: u64,
}

impl GapSum {
    /// Adds one.
    pub fn absorb(&mut self, gap: &Gap) {
        self.count += 1;
        self.open += u64::from(gap.closed_ms.is_none());
        self.packets = self.packets.saturating_add(gap.bound.packets.unwrap_or(0));
        self.bytes = self.bytes.saturating_add(gap.bound.bytes.unwrap_or(0));
        self.unknown += u64::from(gap.bound.packets.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Gap, GapSum, Stage};

    fn gap(opened_ms: i64, closed_ms: Option<i64>, bound: Bound) -> Gap {
        Gap {
            gap_id: 0,
            stage: Stage::Drain,
            interface: None,
            peer: None,
            opened_ms,
            closed_ms,
            bound,
            detail: String::new(),
        }
    }

    #[test]
    fn every_stage_has_a_number_and_a_word_of_its_own() {
        for (number, stage) in (1_u8..).zip(Stage::ALL) {
            assert_eq!(Stage::from_number(number), Some(stage));
            assert_eq!(Stage::from_word(stage.word()), Some(stage));
        }
        let document = include_str!("../../../docs/gaps.md");
        for stage in Stage::ALL {
            assert!(document.contains(&format!("\n| `{}` | ", stage.word())), "{stage:?}");
        }
        assert_eq!(Stage::from_number(0), None);
        assert_eq!(Stage::from_number(12), None, "one that is missing in ALL");
    }

    #[test]
    fn a_gap_touches_what_it_shares_an_instant_with() {
        let cases = [
            // opened, closed, since, until, touches
            (10, Some(20), 0, 10, false),
            (10, Some(20), 0, 11, true),
            (10, Some(20), 12, 13, true),
            (10, Some(20), 20, 30, true),
            (10, Some(20), 21, 30, false),
            (10, None, 1_000, 2_000, true),
            (10, None, 0, 10, false),
            (10, Some(10), 10, 11, true),
        ];
        for (opened, closed, since, until, expected) in cases {
            let touches = gap(opened, closed, Bound::NOTHING).touches(since, until);
            assert_eq!(touches, expected, "{opened} to {closed:?} in {since} to {until}");
        }
    }

    #[test]
    fn a_sum_says_of_how_many_nobody_knows() {
        let mut sum = GapSum::default();
        sum.absorb(&gap(0, Some(1), Bound::of(3, 300)));
        sum.absorb(&gap(0, None, Bound::UNKNOWN));
        sum.absorb(&gap(0, None, Bound { packets: None, bytes: Some(50) }));
        let expected = GapSum { count: 3, open: 2, packets: 3, bytes: 350, unknown: 2 };
        assert_eq!(sum, expected);
        assert_eq!(Bound::of(1, 2).and(Bound::of(3, 4)), Bound::of(4, 6));
        assert_eq!(Bound::of(1, 2).and(Bound::UNKNOWN), Bound::UNKNOWN);
    }
}
