//! Records in the order of their flows, newest first.
//!
//! Chunks lie in another order, and a flow may have records in many: as many records as there is
//! room for are put into order, the newest first, and then those behind them. A chunk whose flows
//! are all older than what there is no room for, or newer than where the order has come to, is not
//! read.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use super::{chunks::Stored, view::Segment};
use crate::{
    chunk::Number,
    flows::{Filter, Record, Tuple},
    live::Position,
};

/// The order of positions, newest first.
const NEWEST_FIRST: &str = "first_seen DESC, interface.name DESC, protocol DESC, peer_addr DESC, \
    remote_addr DESC, peer_port DESC, remote_port DESC, overflow DESC, record_id DESC";

/// Records that are put into order together: at first as many as the flows that are wanted have, as
/// a rule, and at most as many as memory is meant for. Tests have few records.
const PER_FLOW: usize = if cfg!(test) { 1 } else { 3 };
const LEAST_ROOM: usize = if cfg!(test) { 3 } else { 64 };
const MOST_ROOM: usize = if cfg!(test) { 16 } else { 32_768 };

/// Which flows are wanted of a segment.
#[derive(Clone, Copy)]
pub(super) struct Page<'p> {
    /// At or below this one.
    pub(super) before: Option<&'p Position>,
    /// First seen then or later; others may be shown.
    pub(super) least_ms: i64,
    /// As many, more or less.
    pub(super) flows: usize,
}

/// Where a record stands, newest flows first.
type Key = (i64, Arc<str>, Tuple, bool, u64);

impl Segment {
    /// Shows the matching records of the flows of a page, by descending position.
    pub(super) fn newest_first(
        &self,
        filter: &Filter,
        watermark: u64,
        page: Page<'_>,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut bound = page.before.map_or(i64::MAX, |before| before.first_seen_ms);
        let mut chunks = self.chunks(0, watermark)?;
        if chunks.is_empty() {
            return self.newest_of_tail(filter, watermark, bound, sink);
        }
        let newest = |stored: &Stored| *stored.chunk.header().zone(Number::FirstSeen).end();
        chunks.sort_by_key(|stored| std::cmp::Reverse(newest(stored)));
        let wanted = self.wanted(filter, 0, watermark)?;
        let (mut last, mut room): (Option<Key>, usize) =
            (None, page.flows.saturating_mul(PER_FLOW).clamp(LEAST_ROOM, MOST_ROOM));
        loop {
            let mut best = Best { room, below: last.take(), records: BTreeMap::new() };
            self.newest_of_tail(filter, watermark, bound, |record| best.offer(record))?;
            for stored in &chunks {
                let least = best.least().max(page.least_ms);
                if newest(stored) < least {
                    break;
                }
                // What it reads is let go of before the next one.
                let stored = stored.unread();
                let wanted = wanted.within(Number::FirstSeen, least..=bound);
                let offer = &mut |record| {
                    let _better_ones_may_follow = best.offer(record);
                    ControlFlow::Continue(())
                };
                let _all = self.each_of(&stored, &wanted, filter, offer)?;
            }
            let is_last = best.records.len() < room;
            while let Some((key, record)) = best.records.pop_last() {
                if sink(record).is_break() {
                    return Ok(());
                }
                bound = key.0;
                last = Some(key);
            }
            if is_last {
                return Ok(());
            }
            room = (room * 4).min(MOST_ROOM);
        }
    }

    fn newest_of_tail(
        &self,
        filter: &Filter,
        watermark: u64,
        bound: i64,
        mut sink: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        if let Some(rows) = self.kept(watermark)? {
            let is_wanted = |row: &&Record| row.first_seen_ms <= bound && filter.matches(row);
            let mut wanted: Vec<_> = rows.filter(is_wanted).map(|row| (key(row), row)).collect();
            wanted.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
            // Where it stops is the sink's to say.
            let _stopped = wanted.into_iter().try_for_each(|(_, row)| sink(row.clone()));
            return Ok(());
        }
        // The unary plus leaves the choice of index to `first_seen`.
        let narrow = "first_seen <= :bound AND +record_id <= :watermark";
        self.tail(filter, watermark, (narrow, bound), NEWEST_FIRST, sink)
    }
}

fn key(record: &Record) -> Key {
    let Record { first_seen_ms, tuple, overflow, record_id, .. } = record;
    (*first_seen_ms, record.interface.clone(), *tuple, *overflow, *record_id)
}

/// The newest records below a place, in whatever order they come.
struct Best {
    room: usize,
    below: Option<Key>,
    records: BTreeMap<Key, Record>,
}

impl Best {
    /// Breaks when it is full of better ones.
    fn offer(&mut self, record: Record) -> ControlFlow<()> {
        let key = key(&record);
        if self.below.as_ref().is_some_and(|below| key >= *below) {
            return ControlFlow::Continue(());
        }
        if self.records.len() == self.room {
            if self.records.first_key_value().is_some_and(|(least, _)| key < *least) {
                return ControlFlow::Break(());
            }
            self.records.pop_first();
        }
        self.records.insert(key, record);
        ControlFlow::Continue(())
    }

    /// When the oldest flow was first seen that another record has to be better than.
    fn least(&self) -> i64 {
        match self.records.first_key_value() {
            Some(((first_seen_ms, ..), _)) if self.records.len() == self.room => *first_seen_ms,
            _ => i64::MIN,
        }
    }
}
