//! Bins: where a number lies, as one byte, and how far it lies from the bin's start, in bits.
//!
//! - A value that is frequent has a bin of its own, without bits.
//! - Any other lies in a bucket of its sign, its length in bits and up to two more leading bits;
//!   the rest of its bits follow. So sizes and times, which spread over many magnitudes, take little
//!   more than their entropy, and nothing is out of range.
//! - zstd sees the bytes of the bins only. The bits are noise.

use std::ops::RangeInclusive;

use super::{
    ChunkError,
    bytes::{Reader, put_signed, put_varint},
    error::damaged,
};

/// One of every so many values is looked at to find frequent ones.
const SAMPLE: usize = 32;
/// A frequent value must save this much over its bucket: its entry in the table takes some bytes.
const WORTH_BITS: usize = 64;
const MOST_FREQUENT: usize = 120;
pub(super) const MOST_BINS: usize = 256;
/// Signs, lengths in bits, two more bits.
const MOST_BUCKETS: usize = 2 * 65 * 4;
const SLOTS: usize = 1024;

/// Where a value lies whatever the data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    number: usize,
    width: u32,
}

impl Bucket {
    fn of(value: i64, more_bits: u32) -> Self {
        let magnitude = value.unsigned_abs();
        let negative = usize::from(value < 0);
        let small = 1_u64 << more_bits;
        if magnitude < small {
            return Self { number: magnitude as usize * 2 + negative, width: 0 };
        }
        let length = u64::BITS - magnitude.leading_zeros();
        let width = length - 1 - more_bits;
        let lead = (magnitude >> width) & (small - 1);
        let step = u64::from(length - more_bits) * small + lead;
        Self { number: step as usize * 2 + negative, width }
    }

    /// The lowest value and the width of a bucket.
    fn bounds(number: usize, more_bits: u32) -> Option<(i64, u32)> {
        let (step, negative) = (number as u64 / 2, number % 2 == 1);
        let small = 1_u64 << more_bits;
        let (least, width) = if step < small {
            (step, 0)
        } else {
            let width = u32::try_from(step / small).ok()? - 1;
            let lead = small | (step % small);
            (lead.checked_shl(width).filter(|least| least >> width == lead)?, width)
        };
        let most = least + ((1_u64 << width) - 1);
        let base = if negative { most.wrapping_neg() } else { least };
        Some((base.cast_signed(), width))
    }
}

/// The bins of one column.
#[derive(Debug)]
pub(super) struct Bins {
    more_bits: u32,
    /// Ascending, the first bins.
    buckets: Vec<usize>,
    /// Ascending, the bins after them.
    frequent: Vec<i64>,
}

impl Bins {
    /// Chooses bins for these values; gives each one's bin.
    pub(super) fn fit(values: &[i64]) -> (Self, Vec<u8>) {
        let frequent = frequent(values);
        let slots = Slots::new(&frequent);
        for more_bits in [2, 1] {
            if let Some(fitting) = Self::with(values, &frequent, &slots, more_bits) {
                return fitting;
            }
        }
        let coarsest = Self::with(values, &frequent, &slots, 0);
        coarsest.expect("130 buckets and 120 frequent values are fewer than 256")
    }

    /// The same with buckets of that kind, if they are few enough.
    fn with(
        values: &[i64],
        frequent: &[i64],
        slots: &Slots,
        more_bits: u32,
    ) -> Option<(Self, Vec<u8>)> {
        // Frequent values are counted as if they were more buckets.
        let mut numbers = [u16::MAX; MOST_BUCKETS + MOST_FREQUENT];
        let places: Vec<u16> = values
            .iter()
            .map(|value| {
                let number = slots
                    .find(*value)
                    .map_or_else(|| Bucket::of(*value, more_bits).number, |nth| MOST_BUCKETS + nth);
                numbers[number] = 0;
                number as u16
            })
            .collect();
        let buckets: Vec<usize> =
            (0..MOST_BUCKETS).filter(|number| numbers[*number] == 0).collect();
        if buckets.len() + frequent.len() > MOST_BINS {
            return None;
        }
        for (bin, bucket) in buckets.iter().enumerate() {
            numbers[*bucket] = bin as u16;
        }
        for nth in 0..frequent.len() {
            numbers[MOST_BUCKETS + nth] = (buckets.len() + nth) as u16;
        }
        let placed = places.iter().map(|place| numbers[usize::from(*place)] as u8).collect();
        Some((Self { more_bits, buckets, frequent: frequent.to_vec() }, placed))
    }

    /// The bins as they are looked up.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        for bucket in &self.buckets {
            let bounds = Bucket::bounds(*bucket, self.more_bits);
            let (start, width) = bounds.expect("the bucket of a value has bounds");
            table.push(start, width);
        }
        for value in &self.frequent {
            table.push(*value, 0);
        }
        table
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.more_bits as u8);
        put_varint(out, self.buckets.len() as u64);
        let mut before = 0;
        for bucket in &self.buckets {
            put_varint(out, (bucket - before) as u64);
            before = *bucket;
        }
        put_varint(out, self.frequent.len() as u64);
        let mut before = 0_i64;
        for value in &self.frequent {
            put_signed(out, value.wrapping_sub(before));
            before = *value;
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Table, ChunkError> {
        let more_bits = u32::from(reader.byte()?);
        if more_bits > 2 {
            return damaged("bins are of an unknown kind");
        }
        let mut table = Table::new();
        let mut number = 0_usize;
        for _ in 0..reader.count(MOST_BINS)? {
            number += reader.count(MOST_BUCKETS)?;
            let Some((start, width)) = Bucket::bounds(number, more_bits) else {
                return damaged("a bin is out of range");
            };
            table.push(start, width);
        }
        let mut value = 0_i64;
        for _ in 0..reader.count(MOST_BINS - table.count)? {
            value = value.wrapping_add(reader.signed()?);
            table.push(value, 0);
        }
        Ok(table)
    }
}

/// Values that are worth a bin of their own, ascending.
fn frequent(values: &[i64]) -> Vec<i64> {
    let mut sample: Vec<i64> = values.iter().copied().step_by(SAMPLE).collect();
    sample.sort_unstable();
    let saved =
        |group: &&[i64]| (group.len() - 1) * SAMPLE * Bucket::of(group[0], 2).width as usize;
    let mut groups: Vec<&[i64]> =
        sample.chunk_by(i64::eq).filter(|group| saved(group) >= WORTH_BITS).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(saved(group)));
    groups.truncate(MOST_FREQUENT);
    let mut values: Vec<i64> = groups.iter().map(|group| group[0]).collect();
    values.sort_unstable();
    values
}

/// A small hash table from frequent values to their positions.
struct Slots {
    slots: Box<[(i64, u16); SLOTS]>,
}

impl Slots {
    const FREE: u16 = u16::MAX;

    fn new(values: &[i64]) -> Self {
        let mut slots = Box::new([(0, Self::FREE); SLOTS]);
        for (nth, value) in values.iter().enumerate() {
            let mut at = Self::slot(*value);
            while slots[at].1 != Self::FREE {
                at = (at + 1) % SLOTS;
            }
            slots[at] = (*value, nth as u16);
        }
        Self { slots }
    }

    fn find(&self, value: i64) -> Option<usize> {
        let mut at = Self::slot(value);
        loop {
            let (key, nth) = self.slots[at];
            if nth == Self::FREE {
                return None;
            }
            if key == value {
                return Some(usize::from(nth));
            }
            at = (at + 1) % SLOTS;
        }
    }

    fn slot(value: i64) -> usize {
        let mixed = value.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
    }
}

/// From bins to values.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) starts: [i64; MOST_BINS],
    pub(super) widths: [u8; MOST_BINS],
    pub(super) count: usize,
    pub(super) widest: u8,
}

impl Table {
    fn new() -> Self {
        Self { starts: [0; MOST_BINS], widths: [0; MOST_BINS], count: 0, widest: 0 }
    }

    /// The lowest value of a bin and how many bits its values have.
    pub(super) fn bin(&self, bin: u8) -> (i64, u8) {
        (self.starts[usize::from(bin)], self.widths[usize::from(bin)])
    }

    /// Between what the values of each bin lie.
    pub(super) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<i64>> {
        let bins = self.starts[..self.count].iter().zip(&self.widths);
        bins.map(|(start, width)| *start..=start.wrapping_add((1_i64 << width) - 1))
    }

    /// Whether all values of all bins are `u32`s.
    pub(super) fn is_short(&self) -> bool {
        let bins = self.starts[..self.count].iter().zip(&self.widths);
        let most = |start: u32, width: u8| u64::from(start) + ((1_u64 << width) - 1);
        bins.into_iter().all(|(start, width)| {
            u32::try_from(*start).is_ok_and(|start| most(start, *width) <= u64::from(u32::MAX))
        })
    }

    fn push(&mut self, start: i64, width: u32) {
        self.starts[self.count] = start;
        self.widths[self.count] = width as u8;
        self.widest = self.widest.max(width as u8);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bins, Bucket, MOST_BUCKETS, Reader};

    #[test]
    fn the_ends_of_the_range_have_buckets() {
        for value in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX] {
            for more_bits in 0..=2 {
                let bucket = Bucket::of(value, more_bits);
                assert!(bucket.number < MOST_BUCKETS, "{value}");
                let (base, width) = Bucket::bounds(bucket.number, more_bits).unwrap();
                assert_eq!(width, bucket.width, "{value}");
                assert!(value.wrapping_sub(base).cast_unsigned() >> width == 0, "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_value_is_its_bin_and_its_bits(values in prop::collection::vec(
            prop_oneof![any::<i64>(), -300_i64..300, (0_u32..63).prop_map(|bit| 1 << bit)], 1..400,
        )) {
            let (bins, placed) = Bins::fit(&values);
            let mut out = Vec::new();
            bins.write(&mut out);
            let mut reader = Reader(&out);
            let table = Bins::read(&mut reader).unwrap();
            prop_assert!(reader.end().is_ok());
            for (value, bin) in values.into_iter().zip(placed) {
                let bin = usize::from(bin);
                prop_assert!(bin < table.count);
                let own = value.wrapping_sub(table.starts[bin]).cast_unsigned();
                prop_assert_eq!(own >> table.widths[bin], 0, "{} in bin {}", value, bin);
            }
        }
    }
}
