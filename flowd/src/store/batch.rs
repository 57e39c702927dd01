//! Records as many at a time as lie together, for somebody who goes through all of them at leisure.
//!
//! - A batch is what matches of one chunk, or some rows. A chunk is read once.
//! - Every id of a batch is above those of the batch before.
//! - Nothing is open between two batches, so whoever stops in the middle keeps no segment.

use std::{ops::ControlFlow, sync::Arc};

use super::{ReadError, Reader, opened::Reached, row::Names, source::Source as _, view::Segment};
use crate::{
    chunk::{ColumnSet, Picked},
    flows::{Filter, Record},
};

/// What of a chunk somebody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// What no column of these says may be missing.
    pub(super) of: ColumnSet,
    /// Whether its records come by ascending id.
    pub(super) is_by_id: bool,
}

/// Some records. Those of a chunk are made one at a time.
pub(super) enum Batch {
    Chunk(Box<(Picked, Arc<Names>)>),
    Rows(Vec<Record>),
}

impl Default for Batch {
    fn default() -> Self {
        Self::Rows(Vec::new())
    }
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.0.len(),
            Self::Rows(records) => records.len(),
        }
    }

    /// One of them.
    pub(super) fn record(&self, at: usize) -> Option<Record> {
        match self {
            Self::Chunk(chunk) => {
                let (picked, names) = &**chunk;
                picked.row(at).map(|row| names.record(&row))
            }
            Self::Rows(records) => records.get(at).cloned(),
        }
    }
}

impl Reader {
    /// The next records that may match, from where the batch before ended; none: there are no more.
    /// Of rows there are `most`.
    pub(super) fn batch(
        &self,
        filter: &Filter,
        reached: &mut Reached,
        watermark: u64,
        (most, need): (usize, Need),
    ) -> Result<Batch, ReadError> {
        for opened in self.opened_on(filter, reached)? {
            let (path, segment) = opened?;
            let read = segment.batch(filter, reached.after, watermark, (most, need));
            let (batch, after) = read.map_err(self.failed(&path))?;
            *reached = Reached { after, segment: Some(path) };
            if batch.len() > 0 {
                return Ok(batch);
            }
        }
        Ok(Batch::default())
    }
}

impl Segment {
    /// The first records above `after`, and above which one the next are.
    fn batch(
        self,
        filter: &Filter,
        after: u64,
        watermark: u64,
        (most, need): (usize, Need),
    ) -> rusqlite::Result<(Batch, u64)> {
        let wanted = self.wanted(filter, after, watermark)?;
        for stored in self.chunks(after, watermark)? {
            let picked = self.pick(&stored, &wanted, need.of)?;
            if !picked.is_empty() {
                let picked = if need.is_by_id { picked.by_id() } else { picked };
                return Ok((Batch::Chunk(Box::new((picked, self.into_names()?))), stored.last));
            }
        }
        let mut records = Vec::new();
        self.tail_by_id(filter, watermark, after, |record| {
            records.push(record);
            if records.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let after = records.last().map_or(after, |record| record.record_id);
        Ok((Batch::Rows(records), after))
    }
}
