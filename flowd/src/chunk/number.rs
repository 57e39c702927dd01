//! The numbers of a record that are asked for by size.

use super::{ColumnId, ColumnSet, Row};

/// A number that every record has. Counters are `u64` by nature and below 2^63, as SQLite has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Number {
    /// The record's id.
    RecordId,
    /// Unix milliseconds.
    WindowStart,
    /// Unix milliseconds.
    WindowEnd,
    /// Unix milliseconds.
    FirstSeen,
    /// Unix milliseconds.
    LastSeen,
    /// In the window.
    RxPackets,
    /// In the window.
    RxBytes,
    /// In the window.
    TxPackets,
    /// In the window.
    TxBytes,
    /// Since the first packet.
    RxPacketsTotal,
    /// Since the first packet.
    RxBytesTotal,
    /// Since the first packet.
    TxPacketsTotal,
    /// Since the first packet.
    TxBytesTotal,
    /// The port of who opened the flow (the peer's, where nobody knows).
    SrcPort,
    /// The other port.
    DstPort,
}

impl Number {
    /// All, in the order of their zones in a header.
    pub const ALL: [Self; 15] = [
        Self::RecordId,
        Self::WindowStart,
        Self::WindowEnd,
        Self::FirstSeen,
        Self::LastSeen,
        Self::RxPackets,
        Self::RxBytes,
        Self::TxPackets,
        Self::TxBytes,
        Self::RxPacketsTotal,
        Self::RxBytesTotal,
        Self::TxPacketsTotal,
        Self::TxBytesTotal,
        Self::SrcPort,
        Self::DstPort,
    ];

    /// The numbers of one record, in the order of [`Self::ALL`].
    pub fn all_of(row: &Row) -> [i64; Self::ALL.len()] {
        let (src_port, dst_port) = row.initiator.first(row.tuple.peer_port, row.tuple.remote_port);
        let (window, total) = (&row.counters, &row.total);
        [
            row.record_id.cast_signed(),
            row.window_start_ms,
            row.window_end_ms,
            row.first_seen_ms,
            row.last_seen_ms,
            window.rx_packets.cast_signed(),
            window.rx_bytes.cast_signed(),
            window.tx_packets.cast_signed(),
            window.tx_bytes.cast_signed(),
            total.rx_packets.cast_signed(),
            total.rx_bytes.cast_signed(),
            total.tx_packets.cast_signed(),
            total.tx_bytes.cast_signed(),
            i64::from(src_port),
            i64::from(dst_port),
        ]
    }

    /// The number of one record.
    pub fn of(self, row: &Row) -> i64 {
        Self::all_of(row)[self as usize]
    }

    /// The columns that say it.
    pub fn columns(self) -> ColumnSet {
        use ColumnId::{
            Clock, DstPort, FirstId, FirstSeen, LastSeen, LaterId, RxBytes, RxBytesBefore,
            RxPackets, RxPacketsBefore, SrcPort, State, States, TxBytes, TxBytesBefore, TxPackets,
            TxPacketsBefore, WindowEnd, WindowStart,
        };
        let runs = [States, State];
        let ids = [States, State, FirstId, LaterId];
        let ends = [States, State, FirstId, LaterId, Clock, WindowEnd];
        let (base, own): (&[ColumnId], &[ColumnId]) = match self {
            Self::RecordId => (&ids, &[]),
            Self::WindowEnd => (&ends, &[]),
            Self::WindowStart => (&ends, &[WindowStart]),
            Self::FirstSeen => (&ends, &[WindowStart, FirstSeen]),
            Self::LastSeen => (&ends, &[LastSeen]),
            Self::RxPackets => (&[], &[RxPackets]),
            Self::RxBytes => (&[], &[RxBytes]),
            Self::TxPackets => (&[], &[TxPackets]),
            Self::TxBytes => (&[], &[TxBytes]),
            Self::RxPacketsTotal => (&runs, &[RxPackets, RxPacketsBefore]),
            Self::RxBytesTotal => (&runs, &[RxBytes, RxBytesBefore]),
            Self::TxPacketsTotal => (&runs, &[TxPackets, TxPacketsBefore]),
            Self::TxBytesTotal => (&runs, &[TxBytes, TxBytesBefore]),
            Self::SrcPort => (&runs, &[SrcPort]),
            Self::DstPort => (&runs, &[DstPort]),
        };
        base.iter().chain(own).copied().collect()
    }
}
