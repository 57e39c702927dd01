//! A column once it is loaded. It never changes, so whoever reads the chunk may share it.

use std::sync::Arc;

use super::{
    ColumnId,
    column::Level,
    entry::{End, Kind, State},
    header::Seal,
    layout::Shape,
    members::Members,
    numbers::Numbers,
    sums::Sums,
};

/// What a column is once it is loaded.
#[derive(Debug)]
pub(super) enum Part {
    Ends(Vec<End>),
    Kinds(Vec<Kind>),
    States(Vec<State>),
    Times(Vec<i64>),
    Members(Members),
    Sums(Sums),
    Values(Numbers, Vec<u8>),
}

impl Part {
    /// The memory that it takes at most, where pages have so many values of it.
    fn most_bytes(&self, counts: impl Iterator<Item = usize>) -> usize {
        let inside = match self {
            Self::Ends(ends) => size_of_val(&ends[..]),
            Self::Kinds(kinds) => size_of_val(&kinds[..]),
            Self::States(states) => size_of_val(&states[..]),
            Self::Times(times) => size_of_val(&times[..]),
            Self::Members(members) => members.bytes(),
            Self::Sums(Sums(sums)) => size_of_val(&sums[..]),
            Self::Values(numbers, blob) => numbers.most_bytes(&blob[1..], counts) + blob.len(),
        };
        size_of::<Self>() + inside
    }
}

/// A column of a chunk that was read, found to be as the header says, and made ready to be used;
/// clones share it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub(super) seal: Seal,
    pub(super) part: Arc<Part>,
    most_bytes: usize,
}

impl Loaded {
    pub(super) fn new(seal: Seal, column: ColumnId, part: Part, pages: &[Shape]) -> Self {
        let count = |page: &Shape| match column.level() {
            Level::Flow => page.flows,
            Level::Later => page.rows - page.flows,
            Level::Chunk | Level::Record => page.rows,
        };
        let most_bytes = part.most_bytes(pages.iter().map(count));
        Self { seal, part: part.into(), most_bytes }
    }

    /// The memory that it takes at most, in bytes.
    pub fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// It stays: what is unpacked of it once, is not unpacked again.
    pub fn stay(&self) {
        if let Part::Values(numbers, _) = &*self.part {
            numbers.keep_planes();
        }
    }
}
