//! Sums by group over chunks: a column at a time, and no record is made of what is only added up.
//!
//! - A group is a number for each property. Numbers stand for the same in all chunks of a query.
//! - Where a chunk is asked for whole, and has sums by the property, these are added.
//! - Which records match, a plan says; a test holds it against [`Filter::matches`].

use std::{collections::HashMap, ops::ControlFlow};

use flowd_common::packet::has_ports;
use foldhash::fast::RandomState;

use super::{
    chunks::{Stored, damaged},
    keys::{Keys, Table, address, of_peer},
    row::Names,
    sums::{absorb_sum, is_whole},
    view::Segment,
    wanted::Wanted,
};
use crate::{
    chunk::{
        Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Fate, Number, Page, Selection, Sum,
        tally_columns,
    },
    flows::{By, Counters, Filter, Group, Grouping, Key, Step, Summary, Verdict},
};

/// Verdict and overflow, as a position.
const FATES: usize = 4;
/// A group as the numbers of its keys.
type Ids = [u32; Grouping::MOST];

/// What the records of chunks add up to.
pub(super) struct Tallies<'f> {
    filter: &'f Filter,
    watermark: u64,
    by: Vec<By>,
    /// Sums are by the step in which windows end, too.
    step: Option<Step>,
    /// Of each property.
    keys: Vec<Keys>,
    /// Where the sums of a group and a step are.
    slots: HashMap<(Ids, i64), usize, RandomState>,
    sums: Vec<[Added; FATES]>,
}

/// What some records add up to.
#[derive(Clone, Copy, Default)]
struct Added {
    /// Flows that have their first record of the range here.
    flows: u64,
    /// Flows that have their first record of the step here.
    flows_of_step: u64,
    counters: Counters,
}

/// A group's sums.
pub(super) struct Tally {
    pub(super) group: Group,
    /// Unix milliseconds; zero without steps.
    pub(super) start_ms: i64,
    pub(super) sum: Summary,
    /// The same, with the flows of the step.
    pub(super) of_step: Summary,
}

impl<'f> Tallies<'f> {
    /// `None`: the filter asks for what only records and the ledger say.
    pub(super) fn new(
        filter: &'f Filter,
        by: &[By],
        step: Option<Step>,
        watermark: u64,
    ) -> Option<Self> {
        let is_of_columns = filter.state.is_none() && filter.min_bytes.is_none();
        is_of_columns.then(|| Self {
            filter,
            watermark,
            by: by.to_vec(),
            step,
            keys: by.iter().map(|_| Keys::default()).collect(),
            slots: HashMap::default(),
            sums: Vec::new(),
        })
    }

    /// How many groups and steps there are.
    pub(super) fn groups(&self) -> usize {
        self.sums.len()
    }

    /// Gives every sum to `sink`, and begins anew.
    pub(super) fn take(&mut self, mut sink: impl FnMut(Tally)) {
        for ((ids, start_ms), slot) in self.slots.drain() {
            let (mut sum, mut of_step) = (Summary::default(), Summary::default());
            for (fate, added) in self.sums[slot].iter().enumerate() {
                let verdict = if fate & 1 == 0 { Verdict::Allow } else { Verdict::Deny };
                let Added { flows, flows_of_step, counters } = *added;
                absorb_sum(&mut sum, verdict, fate & 2 != 0, (flows, counters));
                absorb_sum(&mut of_step, verdict, fate & 2 != 0, (flows_of_step, counters));
            }
            let keys = self.keys.iter().zip(ids);
            let group = Group(keys.map(|(keys, id)| keys.key(id)).collect());
            sink(Tally { group, start_ms, sum, of_step });
        }
        self.sums.clear();
        self.keys.iter_mut().for_each(|keys| *keys = Keys::default());
    }

    /// Adds the records of a segment's chunks; `behind` each, it may stop.
    pub(super) fn add_chunks(
        &mut self,
        segment: &Segment,
        mut behind: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = segment.wanted(self.filter, 0, self.watermark);
        for mut stored in segment.chunks(0, self.watermark)? {
            segment.heed_leash()?;
            let is_served = self.step.is_none()
                && is_whole(stored.chunk.header(), self.filter, self.watermark)
                && self.add_sums(segment, &mut stored)?;
            if !is_served {
                self.add_chunk(segment, &mut stored, &wanted)?;
            }
            if behind(self).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn add_chunk(
        &mut self,
        segment: &Segment,
        stored: &mut Stored,
        wanted: &Wanted,
    ) -> rusqlite::Result<()> {
        let Some(selections) = segment.selections(stored, wanted)? else { return Ok(()) };
        stored.need(&segment.conn, self.columns(&stored.chunk))?;
        let tables = self.by.iter().map(|by| Table::of(*by, &stored.chunk));
        let mut tables = tables.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        for (page, selection) in stored.chunk.pages().zip(&selections) {
            if *selection != Selection::Nothing {
                segment.heed_leash()?;
                self.add_page(&page, selection, &mut tables, &segment.names).map_err(damaged)?;
            }
        }
        Ok(())
    }

    /// Whether a flow may have begun before the range, or before a step of it.
    fn looks_at_starts(&self, chunk: &Chunk) -> bool {
        let since_ms = self.filter.since_ms.unwrap_or(i64::MIN);
        self.step.is_some() || *chunk.header().zone(Number::WindowStart).start() < since_ms
    }

    fn columns(&self, chunk: &Chunk) -> ColumnSet {
        let mut columns = tally_columns();
        if self.looks_at_starts(chunk) {
            columns = columns.and(Number::WindowStart.columns());
        }
        if self.step.is_some() {
            columns = columns.and(Number::WindowEnd.columns());
        }
        for by in &self.by {
            columns = match by {
                By::Peer | By::User => columns.and(Code::Peer.columns()),
                By::Src | By::Dst => columns.and(Code::Peer.columns()).and(Code::Remote.columns()),
                By::DstPort => columns.and(Code::DstPort.columns()),
                By::Protocol | By::Rule | By::Verdict => columns,
            };
        }
        columns
    }

    fn add_page(
        &mut self,
        page: &Page<'_>,
        selection: &Selection,
        tables: &mut [Table],
        names: &Names,
    ) -> Result<(), ChunkError> {
        let kinds = page.chunk().kinds()?;
        let codes = page.codes(Code::Kind)?;
        let opens = page.opens()?;
        let since_ms = self.filter.since_ms.unwrap_or(i64::MIN);
        let starts = match self.looks_at_starts(page.chunk()) {
            true => Some(page.numbers(Number::WindowStart)?),
            false => None,
        };
        let steps = match self.step {
            Some(step) => Some((step, page.numbers(Number::WindowEnd)?)),
            None => None,
        };
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = [
            page.numbers(Number::RxPackets)?,
            page.numbers(Number::RxBytes)?,
            page.numbers(Number::TxPackets)?,
            page.numbers(Number::TxBytes)?,
        ];
        let wanted: Vec<usize> = selection.iter(page.rows()).collect();
        let mut ids: Vec<Vec<u32>> = Vec::with_capacity(tables.len());
        for ((by, table), keys) in self.by.iter().zip(tables).zip(&mut self.keys) {
            ids.push(table.ids(*by, page, &wanted, keys, names)?);
        }
        let mut last: Option<((Ids, i64), usize)> = None;
        for (place, at) in wanted.into_iter().enumerate() {
            let mut group = Ids::default();
            ids.iter().zip(&mut group).for_each(|(ids, id)| *id = ids[place]);
            let start_ms = steps.map_or(0, |(step, ends)| step.around(ends[at]));
            let key = (group, start_ms);
            let slot = match last {
                Some((known, slot)) if known == key => slot,
                _ => self.slot(key),
            };
            last = Some((key, slot));
            let kind = &kinds[codes[at] as usize];
            let opens_from =
                |from_ms| opens[at] || starts.is_some_and(|starts| starts[at] < from_ms);
            let added = &mut self.sums[slot][position(kind.verdict, kind.overflow)];
            added.flows += u64::from(opens_from(since_ms) && !kind.overflow);
            let is_of_step = opens_from(since_ms.max(start_ms)) && !kind.overflow;
            added.flows_of_step += u64::from(is_of_step);
            added.counters += Counters {
                rx_packets: rx_packets[at].cast_unsigned(),
                rx_bytes: rx_bytes[at].cast_unsigned(),
                tx_packets: tx_packets[at].cast_unsigned(),
                tx_bytes: tx_bytes[at].cast_unsigned(),
            };
        }
        Ok(())
    }

    fn slot(&mut self, key: (Ids, i64)) -> usize {
        let sums = &mut self.sums;
        *self.slots.entry(key).or_insert_with(|| {
            sums.push([Added::default(); FATES]);
            sums.len() - 1
        })
    }

    /// Adds a whole chunk by its sums; `false`: it has none by these properties.
    fn add_sums(&mut self, segment: &Segment, stored: &mut Stored) -> rusqlite::Result<bool> {
        use ColumnId::{PeerEnds, PeerSums, PortSums, RemoteEnds, RemoteSums};
        let by = match self.by[..] {
            [] => {
                for (fate, sum) in stored.chunk.header().totals() {
                    self.add_sum(Ids::default(), *fate, sum);
                }
                return Ok(true);
            }
            [by] => by,
            _ => return Ok(false),
        };
        let columns: &[ColumnId] = match by {
            By::Peer | By::User => &[PeerEnds, PeerSums],
            By::Src | By::Dst => &[PeerEnds, PeerSums, RemoteEnds, RemoteSums],
            By::DstPort | By::Protocol => &[PortSums],
            By::Verdict => &[],
            By::Rule => return Ok(false),
        };
        if !columns.iter().all(|column| stored.chunk.header().has(*column)) {
            return Ok(false);
        }
        stored.need(&segment.conn, columns.iter().copied().collect())?;
        self.add_sums_by(by, &stored.chunk, &segment.names).map_err(damaged)?;
        Ok(true)
    }

    fn add_sums_by(&mut self, by: By, chunk: &Chunk, names: &Names) -> Result<(), ChunkError> {
        let end = |ends: &[End], key: i64| -> Result<End, ChunkError> {
            let end = usize::try_from(key).ok().and_then(|key| ends.get(key));
            end.copied().ok_or(ChunkError::Damaged("a sum is of an end that is in no dictionary"))
        };
        match by {
            By::Peer | By::User => {
                for ((key, fate), sum) in &chunk.sums(ColumnId::PeerSums)?.0 {
                    let key = of_peer(by, end(chunk.peer_ends()?, *key)?.peer, names);
                    self.add_keyed(key, *fate, sum);
                }
            }
            By::Src | By::Dst => {
                // Each record is in both: here it counts with the end that is asked for.
                let is_inside = |fate: &Fate| fate.inward == (by == By::Dst);
                for (column, ends, inside) in [
                    (ColumnId::PeerSums, chunk.peer_ends()?, true),
                    (ColumnId::RemoteSums, chunk.remote_ends()?, false),
                ] {
                    for ((key, fate), sum) in &chunk.sums(column)?.0 {
                        if is_inside(fate) == inside {
                            let address = address(&end(ends, *key)?);
                            self.add_keyed((!fate.overflow).then_some(address), *fate, sum);
                        }
                    }
                }
            }
            By::DstPort | By::Protocol => {
                for ((key, fate), sum) in &chunk.sums(ColumnId::PortSums)?.0 {
                    let (protocol, port) = ((key >> 16) as u8, (key & 0xffff) as u16);
                    let key = match by {
                        By::Protocol => Some(Key::Protocol(protocol)),
                        _ => has_ports(protocol).then_some(Key::Port(port)),
                    };
                    self.add_keyed(key.filter(|_| !fate.overflow), *fate, sum);
                }
            }
            By::Verdict => {
                for (fate, sum) in chunk.header().totals() {
                    self.add_keyed(Some(Key::Verdict(fate.verdict)), *fate, sum);
                }
            }
            By::Rule => {}
        }
        Ok(())
    }

    fn add_keyed(&mut self, key: Option<Key>, fate: Fate, sum: &Sum) {
        let mut ids = Ids::default();
        if let Some(keys) = self.keys.first_mut() {
            ids[0] = keys.id(key);
        }
        self.add_sum(ids, fate, sum);
    }

    fn add_sum(&mut self, ids: Ids, fate: Fate, sum: &Sum) {
        if self.filter.verdict.is_none_or(|verdict| verdict == fate.verdict) {
            let slot = self.slot((ids, 0));
            let added = &mut self.sums[slot][position(fate.verdict, fate.overflow)];
            added.flows += sum.flows;
            added.counters += sum.counters;
        }
    }
}

fn position(verdict: Verdict, overflow: bool) -> usize {
    usize::from(verdict == Verdict::Deny) | usize::from(overflow) << 1
}
