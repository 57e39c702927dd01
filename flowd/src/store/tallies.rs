//! Sums by group over chunks: a column at a time, and no record is made of what is only added up.
//!
//! - A group is a number for each property. Numbers stand for the same in all chunks of a query.
//! - Where chunks are asked for whole, and have sums by the property, these are added.
//! - Which records match, a plan says; a test holds it against [`Filter::matches`].

use std::{array, collections::HashMap, ops::ControlFlow};

use foldhash::fast::RandomState;

use super::{
    chunks::{Stored, damaged},
    digests::{self, Extent},
    keys::{Keys, Table},
    row::Names,
    second::Second,
    served::Served,
    source::Source,
    view::Segment,
    wanted::Wanted,
};
use crate::{
    chunk::{Chunk, ChunkError, Code, ColumnSet, Fate, Number, Page, Sum, tally_columns},
    flows::{By, Counters, Filter, Group, Grouping, Key, Step, Summary, Verdict},
};

/// Verdict and overflow, as a position.
const FATES: usize = 4;
/// No record that is wanted was of this group so far.
const NOWHERE: usize = usize::MAX;
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
    /// The same by number where groups have one key and there are no steps; else empty.
    places: Vec<usize>,
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
    /// `None`: the filter asks for what only the ledger says.
    pub(super) fn new(
        filter: &'f Filter,
        by: &[By],
        step: Option<Step>,
        watermark: u64,
    ) -> Option<Self> {
        filter.state.is_none().then(|| Self::empty(filter, by.to_vec(), step, watermark))
    }

    fn empty(filter: &'f Filter, by: Vec<By>, step: Option<Step>, watermark: u64) -> Self {
        let keys = by.iter().map(|_| Keys::default()).collect();
        let (slots, places) = (HashMap::default(), Vec::new());
        Self { filter, watermark, by, step, keys, slots, places, sums: Vec::new() }
    }

    /// For the same question, without anything.
    pub(super) fn anew(&self) -> Self {
        Self::empty(self.filter, self.by.clone(), self.step, self.watermark)
    }

    /// Adds what others of the same question are.
    pub(super) fn absorb(&mut self, others: Tallies<'_>) {
        for ((theirs, start_ms), slot) in others.slots {
            let ids = array::from_fn(|at| {
                let own = self.keys.get_mut(at);
                own.map_or(0, |own| own.id(others.keys[at].key(theirs[at])))
            });
            let own_slot = self.slot((ids, start_ms));
            for (own, added) in self.sums[own_slot].iter_mut().zip(&others.sums[slot]) {
                own.flows += added.flows;
                own.flows_of_step += added.flows_of_step;
                own.counters += added.counters;
            }
        }
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
        self.places.clear();
        self.keys.iter_mut().for_each(|keys| *keys = Keys::default());
    }

    /// Adds the records of a segment's chunks; `behind` each, it may stop.
    pub(super) fn add_chunks(
        &mut self,
        segment: &mut Segment,
        second: &Second,
        mut behind: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let wanted = segment.wanted(self.filter, 0, self.watermark)?;
        let served = match self.step {
            None => Served::of(&self.by, self.filter, || segment.names())?,
            Some(_) => None,
        };
        let Some(served) = served else {
            let chunks = segment.chunks(0, self.watermark)?;
            return segment.scan(chunks, &wanted)?.run(self, second, behind);
        };
        // Chunks that a digest answers for are not even listed.
        let (mut after, mut parts) = (0, Vec::new());
        for extent in segment.digests()? {
            segment.heed_leash()?;
            if served.is_whole(&extent, self.watermark)
                && self.add_digest(segment, &served, &extent)?
            {
                let (first, last) = (*extent.ids.start(), *extent.ids.end());
                parts.push((after, first.cast_unsigned().saturating_sub(1)));
                after = last.cast_unsigned();
            }
        }
        parts.push((after, self.watermark));
        for (after, last) in parts.into_iter().filter(|(after, last)| after < last) {
            for stored in segment.chunks(after, last)? {
                segment.heed_leash()?;
                if !self.add_sums(segment, &served, &stored)? {
                    self.add_chunk(segment, segment.names()?, &stored, &wanted)?;
                }
                if behind(self).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds the records of a chunk, one by one.
    pub(super) fn add_chunk(
        &mut self,
        source: &impl Source,
        names: &Names,
        stored: &Stored,
        wanted: &Wanted,
    ) -> rusqlite::Result<()> {
        let pages = source.matching(stored, wanted)?;
        if pages.is_empty() {
            return Ok(());
        }
        source.need(stored, self.columns(&stored.chunk))?;
        let tables = self.by.iter().map(|by| Table::of(*by, &stored.chunk));
        let mut tables = tables.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        for page in pages {
            source.heed_leash()?;
            self.add_page(&page, &mut tables, names).map_err(damaged)?;
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
        if self.filter.min_bytes.is_some() {
            let totals = [Number::RxBytesTotal, Number::TxBytesTotal];
            columns = totals.iter().fold(columns, |columns, of| columns.and(of.columns()));
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
        let mut wanted: Vec<usize> = page.wanted().iter(page.rows()).collect();
        // What the flow had moved after each record.
        let moved = match self.filter.min_bytes {
            None => None,
            Some(least) => {
                let rx = page.numbers(Number::RxBytesTotal)?;
                let tx = page.numbers(Number::TxBytesTotal)?;
                let moved = move |at: usize| rx[at].wrapping_add(tx[at]).cast_unsigned();
                wanted.retain(|at| moved(*at) >= least);
                Some((least, moved))
            }
        };
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
            let window_bytes = rx_bytes[at].wrapping_add(tx_bytes[at]).cast_unsigned();
            let has_grown = moved
                .as_ref()
                .is_some_and(|(least, moved)| moved(at).wrapping_sub(window_bytes) < *least);
            let opens_from = |from_ms| {
                opens[at] || has_grown || starts.is_some_and(|starts| starts[at] < from_ms)
            };
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
        let is_single = self.by.len() == 1 && self.step.is_none();
        let id = key.0[0] as usize;
        if is_single && let Some(slot) = self.places.get(id).filter(|slot| **slot != NOWHERE) {
            return *slot;
        }
        let sums = &mut self.sums;
        let slot = *self.slots.entry(key).or_insert_with(|| {
            sums.push([Added::default(); FATES]);
            sums.len() - 1
        });
        if is_single {
            self.places.resize(self.places.len().max(id + 1), NOWHERE);
            self.places[id] = slot;
        }
        slot
    }

    /// Adds a whole chunk by its sums; `false`: they do not say what is asked for.
    fn add_sums(
        &mut self,
        segment: &Segment,
        served: &Served<'_>,
        stored: &Stored,
    ) -> rusqlite::Result<bool> {
        let header = stored.chunk.header();
        if !served.is_whole(&Extent::of(header), self.watermark) {
            return Ok(false);
        }
        if served.is_of_totals() {
            served.add_totals(header.totals().iter(), |key, fate, sum| {
                self.add_keyed(key, fate, sum);
            });
            return Ok(true);
        }
        stored.need(&segment.conn, served.columns())?;
        let (summed, remote_ends) = (stored.chunk.summed(), stored.chunk.remote_ends().ok());
        let add = |key, fate, sum: &Sum| self.add_keyed(key, fate, sum);
        served.add(&summed, remote_ends, segment.names()?, add).map_err(damaged)
    }

    /// The same of a digest.
    fn add_digest(
        &mut self,
        segment: &Segment,
        served: &Served<'_>,
        extent: &Extent,
    ) -> rusqlite::Result<bool> {
        let blobs = digests::blobs(&segment.conn, extent, served.parts())?;
        let digest = served.digest(&blobs).map_err(damaged)?;
        if served.is_of_totals() {
            let totals = digest.totals.0.iter().map(|((_, fate), sum)| (fate, sum));
            served.add_totals(totals, |key, fate, sum| self.add_keyed(key, fate, sum));
            return Ok(true);
        }
        let summed = digest.summed();
        let add = |key, fate, sum: &Sum| self.add_keyed(key, fate, sum);
        let remote_ends = summed.remotes.map(|(ends, _)| ends);
        served.add(&summed, remote_ends, segment.names()?, add).map_err(damaged)
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

/// Adds what some records of one fate did together.
fn absorb_sum(
    sum: &mut Summary,
    verdict: Verdict,
    overflow: bool,
    (flows, counters): (u64, Counters),
) {
    let side = match verdict {
        Verdict::Deny => &mut sum.denied,
        Verdict::Allow => &mut sum.allowed,
    };
    side.flows += flows;
    side.packets += counters.packets();
    side.bytes += counters.bytes();
    sum.flows += flows;
    sum.counters += counters;
    if overflow {
        sum.overflow += counters;
    }
}

fn position(verdict: Verdict, overflow: bool) -> usize {
    usize::from(verdict == Verdict::Deny) | usize::from(overflow) << 1
}
