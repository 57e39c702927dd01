//! Whether what a chunk says of its records is what they say themselves.

use std::collections::BTreeMap;

use super::{
    Chunk, ChunkError, ColumnId, End, Fate, Member, Number, Row, Selection, Sum, error::damaged,
};
use crate::flows::Initiator;

const MINUTE_MS: i64 = 60_000;

/// Sums as the records have them.
#[derive(Default)]
struct Counted {
    all: BTreeMap<Fate, Sum>,
    peers: BTreeMap<(End, Fate), Sum>,
    remotes: BTreeMap<(End, Fate), Sum>,
    ports: BTreeMap<(i64, Fate), Sum>,
    steps: BTreeMap<(i64, Fate), Sum>,
}

impl Chunk {
    /// Compares sums, bounds and the membership filter with the records. It needs every column.
    pub fn check(&self) -> Result<(), ChunkError> {
        let mut counted = Counted::default();
        let step_ms = i64::from(self.header().step_minutes().max(1)) * MINUTE_MS;
        for page in self.pages() {
            for row in page.select_rows(&Selection::All)? {
                self.check_row(&row)?;
                counted.add(&row, step_ms);
            }
        }
        if counted.all != *self.header().totals() {
            return damaged("its totals are not those of its records");
        }
        let key = |key: i64| Some(key);
        let peer = |key: i64| self.end(ColumnId::PeerEnds, key);
        let remote = |key: i64| self.end(ColumnId::RemoteEnds, key);
        self.check_sums(ColumnId::PeerSums, &counted.peers, peer)?;
        self.check_sums(ColumnId::RemoteSums, &counted.remotes, remote)?;
        self.check_sums(ColumnId::PortSums, &counted.ports, key)?;
        self.check_sums(ColumnId::MinuteSums, &counted.steps, key)
    }

    fn check_row(&self, row: &Row) -> Result<(), ChunkError> {
        let header = self.header();
        let numbers = Number::ALL.into_iter().zip(Number::all_of(row));
        if numbers.into_iter().any(|(number, value)| !header.zone(number).contains(&value)) {
            return damaged("a record is outside of its bounds");
        }
        let members = self.members()?;
        let mut keys = [End::inside(row), End::other(row)]
            .into_iter()
            .flat_map(|end| [Member::Address(end.addr), Member::Peer(end.peer)]);
        if !keys.all(|key| members.may_have(key)) {
            return damaged("a record is not in its membership filter");
        }
        let is_found = header.opened().is_some_and(|opened| opened.contains(&row.first_seen_ms))
            || members.may_have(Member::Older(row.first_seen_ms));
        if is_found { Ok(()) } else { damaged("a flow is not in its membership filter") }
    }

    fn end(&self, column: ColumnId, key: i64) -> Option<End> {
        let ends = match column {
            ColumnId::PeerEnds => self.peer_ends(),
            _ => self.remote_ends(),
        };
        ends.ok()?.get(usize::try_from(key).ok()?).copied()
    }

    fn check_sums<K: Ord>(
        &self,
        column: ColumnId,
        counted: &BTreeMap<(K, Fate), Sum>,
        of: impl Fn(i64) -> Option<K>,
    ) -> Result<(), ChunkError> {
        if !self.header().has(column) {
            return Ok(());
        }
        let sums = &self.sums(column)?.0;
        let is_counted = |((key, fate), sum): &((i64, Fate), Sum)| {
            of(*key).is_some_and(|key| counted.get(&(key, *fate)) == Some(sum))
        };
        if sums.len() == counted.len() && sums.iter().all(is_counted) {
            Ok(())
        } else {
            damaged("its sums are not those of its records")
        }
    }
}

impl Counted {
    fn add(&mut self, row: &Row, step_ms: i64) {
        let fate = Fate {
            verdict: row.verdict,
            overflow: row.overflow,
            inward: row.initiator == Initiator::Remote,
        };
        let flows = u64::from(row.opens() && !row.overflow);
        let sum = Sum { records: 1, flows, counters: row.counters };
        let port = i64::from(row.tuple.protocol) << 16 | Number::DstPort.of(row);
        let step = row.window_end_ms.div_euclid(step_ms);
        self.all.entry(fate).or_default().absorb(&sum);
        self.peers.entry((End::inside(row), fate)).or_default().absorb(&sum);
        self.remotes.entry((End::other(row), fate)).or_default().absorb(&sum);
        self.ports.entry((port, fate)).or_default().absorb(&sum);
        self.steps.entry((step, fate)).or_default().absorb(&sum);
    }
}
