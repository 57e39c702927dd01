//! What is left of a page once something was asked of it, so that less of every further column is
//! read.

use std::{cell::OnceCell, mem};

use super::{ChunkError, Page, Selection, runs::Runs};

/// What is left of a page that was narrowed: positions on the whole one, ascending.
pub(super) struct Left {
    pub(super) flows: Vec<u16>,
    /// All those of the flows.
    pub(super) records: Vec<u16>,
}

impl Page<'_> {
    /// The same page with those runs only that are true here.
    fn keep(self, runs: &[bool]) -> Result<Self, ChunkError> {
        let flows = places(runs);
        let runs = self.runs()?;
        let mut records = Vec::with_capacity(self.rows());
        let mut starts = Vec::with_capacity(flows.len());
        for flow in &flows {
            starts.push(records.len() as u16);
            // Most runs have one record or two.
            for record in runs.range(usize::from(*flow)) {
                records.push(record as u16);
            }
        }
        let runs = Runs::new(starts, records.len());
        let before = |left: &[u16], now: &[u16]| at(left, now).collect();
        Ok(Self {
            wanted: self.wanted.at(&records),
            runs: runs.into(),
            codes_of_runs: self.codes_of_runs.map(|made| some_of(made, &flows)),
            codes: self.codes.map(|made| some_of(made, &records)),
            numbers: self.numbers.map(|made| some_of(made, &records)),
            opens: some_of(self.opens, &records),
            left: Some(match self.left {
                None => Left { flows, records },
                Some(left) => Left {
                    flows: before(&left.flows, &flows),
                    records: before(&left.records, &records),
                },
            }),
            ..self
        })
    }

    /// The same page, of whose records those are wanted that were so far and are true here; `None`:
    /// none.
    pub(super) fn want(mut self, records: Selection) -> Result<Option<Self>, ChunkError> {
        self.wanted = mem::replace(&mut self.wanted, Selection::Nothing).and(records);
        let Selection::Some(wanted) = &self.wanted else {
            return Ok((self.wanted == Selection::All).then_some(self));
        };
        let runs = self.runs()?;
        let has_any = |run| wanted[runs.range(run)].contains(&true);
        let runs: Vec<bool> = (0..self.flow_count()).map(has_any).collect();
        Ok(Some(if is_most(&runs) { self } else { self.keep(&runs)? }))
    }

    /// The same page, and which of its runs are wanted. Where these are few, it has no others.
    pub(super) fn keep_few(self, runs: Selection) -> Result<(Self, Selection), ChunkError> {
        match runs {
            Selection::Some(runs) if are_few(&runs) => Ok((self.keep(&runs)?, Selection::All)),
            runs => Ok((self, runs)),
        }
    }

    /// The same page, of whose runs those are wanted that are true here.
    pub(super) fn want_runs(self, runs: &[bool]) -> Result<Option<Self>, ChunkError> {
        if !is_most(runs) {
            return self.keep(runs).map(Some);
        }
        let wanted = self.each_record(runs)?;
        self.want(Selection::Some(wanted))
    }
}

/// Whether so many are wanted that reading only these takes longer than reading all.
fn is_most(wanted: &[bool]) -> bool {
    wanted.iter().filter(|wanted| **wanted).count() * 4 > wanted.len() * 3
}

/// Whether so few are wanted that asking the others once more takes longer than leaving them out.
fn are_few(wanted: &[bool]) -> bool {
    wanted.iter().filter(|wanted| **wanted).count() * 4 < wanted.len()
}

/// The positions of bits that are set, the others behind them.
const SET: [[u8; 8]; 256] = {
    let mut positions = [[0; 8]; 256];
    let mut bits = 0;
    while bits < 256 {
        let (mut bit, mut found) = (0, 0);
        while bit < 8 {
            if bits >> bit & 1 == 1 {
                positions[bits][found] = bit;
                found += 1;
            }
            bit += 1;
        }
        bits += 1;
    }
    positions
};

/// The positions of those that are true.
pub(super) fn places(wanted: &[bool]) -> Vec<u16> {
    let mut places = vec![0; wanted.len() + 8];
    let mut found = 0;
    let (eights, rest) = wanted.as_chunks::<8>();
    for (eight, first) in eights.iter().zip((0_u16..).step_by(8)) {
        // Each byte's lowest bit comes into the highest byte.
        let word = u64::from_le_bytes(eight.map(u8::from));
        if word == 0 {
            continue;
        }
        let bits = (word.wrapping_mul(0x0102_0408_1020_4080) >> 56) as usize;
        // What is behind those that are set is overwritten by the next ones.
        for (place, position) in places[found..found + 8].iter_mut().zip(SET[bits]) {
            *place = first + u16::from(position);
        }
        found += bits.count_ones() as usize;
    }
    for (place, _) in (eights.len() * 8..).zip(rest).filter(|(_, wanted)| **wanted) {
        places[found] = place as u16;
        found += 1;
    }
    places.truncate(found);
    places
}

/// The values at these places.
pub(super) fn at<T: Copy>(values: &[T], places: &[u16]) -> impl Iterator<Item = T> {
    places.iter().map(|place| values[usize::from(*place)])
}

/// What was decoded at these positions.
fn some_of<T: Copy>(made: OnceCell<Vec<T>>, places: &[u16]) -> OnceCell<Vec<T>> {
    made.into_inner()
        .map_or_else(OnceCell::new, |made| at(&made, places).collect::<Vec<T>>().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::places;

    proptest! {
        #[test]
        fn places_are_those_of_what_is_true(wanted in prop::collection::vec(any::<bool>(), 0..90)) {
            let expected: Vec<u16> =
                (0..).zip(&wanted).filter(|(_, wanted)| **wanted).map(|(at, _)| at).collect();
            prop_assert_eq!(places(&wanted), expected);
        }
    }
}
