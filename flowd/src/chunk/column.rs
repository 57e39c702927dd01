//! The columns of a chunk. Each is one blob.

/// What a column has a value for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It is a table, not a column of values.
    Chunk,
    /// Each run of records of one flow.
    Flow,
    /// Each record of a run but the first.
    Later,
    /// Each record.
    Record,
}

macro_rules! columns {
    ($($(#[$meta:meta])* $name:ident = $number:literal $level:ident),+ $(,)?) => {
        /// One blob of a chunk. The numbers are part of the format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ColumnId { $($(#[$meta])* $name = $number),+ }

        impl ColumnId {
            /// All, by number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The column with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }

            pub(super) const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level),+ }
            }
        }
    };
}

columns! {
    /// The inside ends that occur: peer, address and resource, ascending.
    PeerEnds = 0 Chunk,
    /// The other ends, the most frequent first.
    RemoteEnds = 1 Chunk,
    /// What flows are like: protocol, initiator, verdict and so on, the most frequent first.
    Kinds = 2 Chunk,
    /// What records are like: TCP flags, end, and whether they start a run.
    States = 3 Chunk,
    /// Times at which counters were read, by record id.
    Clock = 4 Chunk,
    /// The membership filter.
    Members = 5 Chunk,
    /// Sums by minute.
    MinuteSums = 6 Chunk,
    /// Sums by inside end.
    PeerSums = 7 Chunk,
    /// Sums by other end.
    RemoteSums = 8 Chunk,
    /// Sums by protocol and destination port.
    PortSums = 9 Chunk,
    /// Which of [`Self::PeerEnds`], as the difference from the flow before.
    Peer = 10 Flow,
    /// Which of [`Self::RemoteEnds`].
    Remote = 11 Flow,
    /// Which of [`Self::Kinds`].
    Kind = 12 Flow,
    /// The port of who opened the flow (the peer's, where nobody knows).
    SrcPort = 13 Flow,
    /// The other port.
    DstPort = 14 Flow,
    /// The first record's id, as the difference from the flow before.
    FirstId = 15 Flow,
    /// How long before its end the first window starts.
    WindowStart = 16 Flow,
    /// How long before the first window the flow was first seen.
    FirstSeen = 17 Flow,
    /// What was counted before the first window.
    RxPacketsBefore = 18 Flow,
    /// What was counted before the first window.
    RxBytesBefore = 19 Flow,
    /// What was counted before the first window.
    TxPacketsBefore = 20 Flow,
    /// What was counted before the first window.
    TxBytesBefore = 21 Flow,
    /// The id, as the difference from the record before of the same flow.
    LaterId = 22 Later,
    /// Which of [`Self::States`].
    State = 23 Record,
    /// How long before the [`Self::Clock`] the window ends.
    WindowEnd = 24 Record,
    /// How long before the end of the window the last packet was seen.
    LastSeen = 25 Record,
    /// In the window.
    RxPackets = 26 Record,
    /// In the window.
    RxBytes = 27 Record,
    /// In the window.
    TxPackets = 28 Record,
    /// In the window.
    TxBytes = 29 Record,
}

impl ColumnId {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Columns that are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnSet(u32);

impl ColumnSet {
    /// With one more.
    #[must_use]
    pub const fn with(self, column: ColumnId) -> Self {
        Self(self.0 | 1 << column.index())
    }

    /// All of either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is one of them.
    pub const fn has(self, column: ColumnId) -> bool {
        self.0 & 1 << column.index() != 0
    }

    /// Whether all of the others are among them.
    pub const fn has_all(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// By number.
    pub fn iter(self) -> impl Iterator<Item = ColumnId> {
        ColumnId::ALL.iter().copied().filter(move |column| self.has(*column))
    }
}

impl FromIterator<ColumnId> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = ColumnId>>(columns: I) -> Self {
        columns.into_iter().fold(Self::default(), Self::with)
    }
}

const _: () = assert!(ColumnId::COUNT <= u32::BITS as usize);

#[cfg(test)]
mod tests {
    use super::{ColumnId, ColumnSet};

    #[test]
    fn numbers_are_positions() {
        for (position, column) in ColumnId::ALL.iter().enumerate() {
            assert_eq!(column.index(), position);
            assert_eq!(ColumnId::from_number(position as u8), Some(*column));
        }
        let all: ColumnSet = ColumnId::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), ColumnId::COUNT);
    }
}
