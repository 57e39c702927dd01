//! Runs of a page: records of one flow that follow each other, and what is the same for all of them.

use std::{
    cell::OnceCell,
    ops::{Range, RangeInclusive},
};

use super::{ChunkError, Code, ColumnId, Page, narrow::at};

/// The runs of a page.
pub(super) struct Runs {
    /// Where each one starts among the records.
    pub(super) starts: Vec<u16>,
    rows: usize,
    flow_of: OnceCell<Vec<u16>>,
}

impl Runs {
    /// The first one starts with the first record.
    pub(super) fn new(starts: Vec<u16>, rows: usize) -> Self {
        Self { starts, rows, flow_of: OnceCell::new() }
    }

    /// The records of a run.
    pub(super) fn range(&self, run: usize) -> Range<usize> {
        let end = self.starts.get(run + 1).map_or(self.rows, |end| usize::from(*end));
        usize::from(self.starts[run])..end
    }

    /// Of each record, the position of its flow on the page.
    pub(super) fn flow_of(&self) -> &[u16] {
        self.flow_of.get_or_init(|| {
            let mut flow_of = vec![0; self.rows];
            self.starts.iter().skip(1).for_each(|start| flow_of[usize::from(*start)] = 1);
            let mut flow = 0;
            for of in &mut flow_of {
                flow += *of;
                *of = flow;
            }
            flow_of
        })
    }

    /// Of each record, the position of its flow and whether it is the first of its run.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, bool)> {
        let mut before = u16::MAX;
        self.flow_of().iter().map(move |flow| {
            let starts = *flow != before;
            before = *flow;
            (usize::from(*flow), starts)
        })
    }
}

impl Page<'_> {
    /// Of each run, whether a port lies in a range.
    pub(super) fn ports_within(
        &self,
        code: Code,
        range: &RangeInclusive<i64>,
    ) -> Result<Vec<bool>, ChunkError> {
        if self.left.is_some() {
            let inside = |port: &u32| range.contains(&i64::from(*port));
            return Ok(self.codes_of_runs(code)?.iter().map(inside).collect());
        }
        let inside = |ports: RangeInclusive<i64>| {
            let (least, most) = (range.contains(ports.start()), range.contains(ports.end()));
            let is_apart = ports.end() < range.start() || range.end() < ports.start();
            if is_apart { Some(false) } else { (least && most).then_some(true) }
        };
        self.chunk.judged(code.place().0, (self.number, self.whole.flows), inside)
    }

    /// When the flow of each run was first seen, for which only its first record is looked at.
    pub(super) fn first_seens_of_runs(&self) -> Result<Vec<i64>, ChunkError> {
        let starts = &self.runs()?.starts;
        let starts: Vec<u16> = match &self.left {
            None => starts.clone(),
            Some(left) => at(&left.records, starts).collect(),
        };
        let page = (self.number, self.whole.rows);
        let ends = self.chunk.values(ColumnId::WindowEnd, page, Some(&starts))?;
        let mut first_seens = self.ends_of(ends, &self.first_ids()?)?;
        let lengths = self.flows(ColumnId::WindowStart)?;
        let before = self.flows(ColumnId::FirstSeen)?;
        for ((first_seen, length), before) in first_seens.iter_mut().zip(lengths).zip(before) {
            *first_seen = first_seen.wrapping_sub(length).wrapping_sub(before);
        }
        Ok(first_seens)
    }
}
