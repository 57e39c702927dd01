//! A column once it is loaded. It never changes, so whoever reads the chunk may share it.

use std::sync::Arc;

use super::{
    entry::{End, Kind, State},
    header::Seal,
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

/// A column of a chunk that was read, found to be as the header says, and made ready to be used;
/// clones share it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub(super) seal: Seal,
    pub(super) part: Arc<Part>,
}

impl Loaded {
    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let of_part = match &*self.part {
            Part::Ends(ends) => size_of_val(&ends[..]),
            Part::Kinds(kinds) => size_of_val(&kinds[..]),
            Part::States(states) => size_of_val(&states[..]),
            Part::Times(times) => size_of_val(&times[..]),
            Part::Members(members) => members.bytes(),
            Part::Sums(Sums(sums)) => size_of_val(&sums[..]),
            Part::Values(numbers, blob) => numbers.bytes() + blob.len(),
        };
        size_of::<Part>() + of_part
    }
}
