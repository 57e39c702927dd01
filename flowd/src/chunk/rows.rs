//! Records of a page, whole.

use super::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Kind, Number, Page, Row, Selection, State,
};
use crate::flows::{Counters, Tuple};

impl Page<'_> {
    /// The selected records, in the chunk's order. It needs [`Chunk::row_columns`].
    pub fn select_rows(&self, selection: &Selection) -> Result<Vec<Row>, ChunkError> {
        let mut rows = Vec::new();
        self.add_rows(selection, &mut rows)?;
        Ok(rows)
    }

    /// Appends the selected records, in the chunk's order, as [`Self::select_rows`] gives them.
    pub fn add_rows(&self, selection: &Selection, rows: &mut Vec<Row>) -> Result<(), ChunkError> {
        let chunk = self.chunk();
        let (peer_ends, remote_ends) = (chunk.peer_ends()?, chunk.remote_ends()?);
        let (kinds, states) = (chunk.kinds()?, chunk.states()?);
        let [peers, remotes, kind_codes, state_codes, src_ports, dst_ports] = [
            self.codes(Code::Peer)?,
            self.codes(Code::Remote)?,
            self.codes(Code::Kind)?,
            self.codes(Code::State)?,
            self.codes(Code::SrcPort)?,
            self.codes(Code::DstPort)?,
        ];
        let mut numbers = [&[][..]; Number::ALL.len()];
        for number in Number::ALL {
            if !matches!(number, Number::SrcPort | Number::DstPort) {
                numbers[number as usize] = self.numbers(number)?;
            }
        }
        let whole = |at: usize| {
            let facts = Facts {
                near: peer_ends[peers[at] as usize],
                far: remote_ends[remotes[at] as usize],
                kind: kinds[kind_codes[at] as usize],
                state: states[state_codes[at] as usize],
                ports: [src_ports[at] as u16, dst_ports[at] as u16],
            };
            row(&facts, |number| numbers[number as usize][at])
        };
        match selection {
            // Their number is known beforehand.
            Selection::All => rows.extend((0..self.rows()).map(whole)),
            _ => rows.extend(selection.iter(self.rows()).map(whole)),
        }
        Ok(())
    }
}

/// What of a record is no number; the ports are those of who opened the flow, and the other one.
pub(super) struct Facts {
    pub(super) near: End,
    pub(super) far: End,
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) ports: [u16; 2],
}

/// A record of what stands in the columns.
pub(super) fn row(facts: &Facts, number: impl Fn(Number) -> i64) -> Row {
    let Facts { near, far, kind, state, ports: [src_port, dst_port] } = facts;
    let (peer_port, remote_port) = kind.initiator.first(*src_port, *dst_port);
    let count = |of: Number| number(of).cast_unsigned();
    Row {
        record_id: count(Number::RecordId),
        interface: kind.interface,
        peer: near.peer,
        remote_peer: far.peer,
        peer_resource: near.resource,
        remote_resource: far.resource,
        rule: kind.rule,
        tuple: Tuple {
            protocol: kind.protocol,
            peer_addr: near.addr,
            remote_addr: far.addr,
            peer_port,
            remote_port,
        },
        window_start_ms: number(Number::WindowStart),
        window_end_ms: number(Number::WindowEnd),
        first_seen_ms: number(Number::FirstSeen),
        last_seen_ms: number(Number::LastSeen),
        initiator: kind.initiator,
        icmp: kind.icmp,
        verdict: kind.verdict,
        enforced: kind.enforced,
        policy_revision: kind.policy_revision,
        counters: Counters {
            rx_packets: count(Number::RxPackets),
            rx_bytes: count(Number::RxBytes),
            tx_packets: count(Number::TxPackets),
            tx_bytes: count(Number::TxBytes),
        },
        total: Counters {
            rx_packets: count(Number::RxPacketsTotal),
            rx_bytes: count(Number::RxBytesTotal),
            tx_packets: count(Number::TxPacketsTotal),
            tx_bytes: count(Number::TxBytesTotal),
        },
        tcp_flags: state.tcp_flags,
        end_reason: state.end_reason,
        overflow: kind.overflow,
    }
}

impl Chunk {
    /// The columns that a record is made of: all but sums and the membership filter.
    pub fn row_columns() -> ColumnSet {
        use ColumnId::{Members, MinuteSums, PeerSums, PortSums, RemoteSums};
        let aside = [Members, MinuteSums, PeerSums, PortSums, RemoteSums];
        ColumnId::ALL.iter().copied().filter(|column| !aside.contains(column)).collect()
    }

    /// All records, by id.
    pub fn all_rows(&self) -> Result<Vec<Row>, ChunkError> {
        let mut rows = Vec::with_capacity(self.header().rows());
        self.add_all_rows(&mut rows)?;
        Ok(rows)
    }

    /// Appends all records, by id.
    pub fn add_all_rows(&self, out: &mut Vec<Row>) -> Result<(), ChunkError> {
        let mut rows = Vec::with_capacity(self.header().rows());
        for page in self.pages() {
            page.add_rows(&Selection::All, &mut rows)?;
        }
        // Rows are large: numbers are sorted, and each row is moved once.
        let mut order: Vec<(u64, u32)> =
            rows.iter().zip(0..).map(|(row, at)| (row.record_id, at)).collect();
        order.sort_unstable();
        out.extend(order.into_iter().map(|(_, at)| rows[at as usize]));
        Ok(())
    }
}
