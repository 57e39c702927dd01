//! Flows in any order: every flow of the range is looked at, and as many are kept as a page has.
//!
//! - A flow whose first and last record are in one segment is judged there, and forgotten.
//! - What goes on, before a segment or after it, waits until every segment was read: the flows that
//!   were open when a day ended, and those that are open now.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{ReadError, Reader, StoredFlow, newest::Page};
use crate::{
    flows::{Filter, Flow, FlowSort, Order, Record, State},
    live::Position,
};

/// Where a flow stands in a sorted list; equals stand in the order of their positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What the list is sorted by.
    pub value: i64,
    /// Which of the flows with this value.
    pub position: Position,
}

/// Which page of a sorted list.
#[derive(Clone, Debug)]
pub struct RankedPage {
    /// What the list is sorted by.
    pub sort: FlowSort,
    /// Which end comes first.
    pub order: Order,
    /// The end of the page before.
    pub after: Option<Place>,
    /// How many flows at most.
    pub limit: usize,
}

impl Reader {
    /// A page of the flows with stored records that match, up to `watermark`, and of `open` ones:
    /// what those did since their last records.
    pub fn ranked(
        &self,
        filter: &Filter,
        page: RankedPage,
        open: Vec<Record>,
        watermark: u64,
    ) -> Result<Vec<(Place, StoredFlow)>, ReadError> {
        let mut ledger = self.whole_ledger(watermark)?;
        let begun = ledger.as_ref().and_then(|ledger| ledger.stretches(filter));
        let mut best = Best { page, flows: BTreeMap::new() };
        let mut waiting: BTreeMap<Position, StoredFlow> = open
            .into_iter()
            .map(|record| (Position::of(&record), (!record.overflow, Flow::new(record))))
            .map(|(position, (is_open, flow))| (position, (flow, is_open)))
            .collect();
        let mut judge = |flow: Flow, begins: bool, best: &mut Best| {
            let position = Position::of(&flow.newest);
            if let Some((known, _)) = waiting.get_mut(&position) {
                return known.merge(flow);
            }
            let is_open = ledger.as_mut().is_some_and(|ledger| ledger.has(&flow.newest));
            if filter.state.is_some_and(|state| (state == State::Open) != is_open) {
                return;
            }
            if begins && flow.newest.end_reason.is_some() {
                best.offer(position, flow, is_open);
            } else {
                waiting.insert(position, (flow, is_open));
            }
        };
        let all = Page { before: None, least_ms: i64::MIN, flows: usize::MAX };
        for opened in self.opened(filter)? {
            let (path, segment) = opened?;
            let segment = segment.of_flows_begun(begun.clone());
            // The records of a flow follow each other.
            let mut current: Option<(Flow, bool)> = None;
            segment
                .newest_first(filter, watermark, all, |record| {
                    let begins = record.counters == record.total;
                    match &mut current {
                        Some((flow, has_begun)) if is_of(flow, &record) => {
                            flow.absorb(record);
                            *has_begun |= begins;
                        }
                        _ => {
                            let next = (Flow::new(record), begins);
                            if let Some((flow, has_begun)) = current.replace(next) {
                                judge(flow, has_begun, &mut best);
                            }
                        }
                    }
                    ControlFlow::Continue(())
                })
                .map_err(self.failed(&path))?;
            if let Some((flow, has_begun)) = current {
                judge(flow, has_begun, &mut best);
            }
        }
        for (position, (flow, is_open)) in waiting {
            best.offer(position, flow, is_open);
        }
        Ok(best.into_rows())
    }
}

fn is_of(flow: &Flow, record: &Record) -> bool {
    let newest = &flow.newest;
    newest.first_seen_ms == record.first_seen_ms
        && newest.tuple == record.tuple
        && newest.overflow == record.overflow
        && newest.interface == record.interface
}

/// The first flows behind a place, in whatever order they come.
struct Best {
    page: RankedPage,
    flows: BTreeMap<Place, StoredFlow>,
}

impl Best {
    fn offer(&mut self, position: Position, flow: Flow, is_open: bool) {
        let RankedPage { sort, order, after, limit } = &self.page;
        let place = Place { value: sort.value(&flow), position };
        if after.as_ref().is_some_and(|after| order.apply(place.cmp(after)).is_le()) {
            return;
        }
        self.flows.insert(place, (flow, is_open));
        if self.flows.len() > *limit {
            match order {
                Order::Descending => self.flows.pop_first(),
                Order::Ascending => self.flows.pop_last(),
            };
        }
    }

    fn into_rows(self) -> Vec<(Place, StoredFlow)> {
        let rows = self.flows.into_iter();
        match self.page.order {
            Order::Descending => rows.rev().collect(),
            Order::Ascending => rows.collect(),
        }
    }
}

#[cfg(test)]
#[path = "ranked_tests.rs"]
mod tests;
