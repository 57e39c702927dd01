//! One column of numbers: bins, then a page after the other. A page is read without the others.

use std::ops::Range;

use super::{
    ChunkError,
    bins::{Bins, Table},
    bytes::{Reader, put_bytes, put_varint},
    error::damaged,
    plane::{Packer, Plane, Unpacker},
};

/// So many zero bytes follow the last bits: bits are read some words at a time.
const PADDING: usize = 16;

/// Appends a column whose pages have these lengths.
pub(super) fn encode(values: &[i64], pages: &[usize], packer: &mut Packer, out: &mut Vec<u8>) {
    let (bins, placed) = Bins::fit(values);
    let mut bodies = Vec::with_capacity(values.len() * 2);
    let mut lengths = Vec::with_capacity(pages.len());
    let (mut values, mut placed) = (values, &placed[..]);
    for count in pages {
        let (page, after) = values.split_at(*count);
        let (bins_of_page, bins_after) = placed.split_at(*count);
        let before = bodies.len();
        packer.pack(bins_of_page, &mut bodies);
        put_bytes(&mut bodies, &own_bits(page, bins_of_page, &bins));
        lengths.push(bodies.len() - before);
        (values, placed) = (after, bins_after);
    }
    bins.write(out);
    for length in lengths {
        put_varint(out, length as u64);
    }
    out.append(&mut bodies);
    out.extend([0; PADDING]);
}

/// The bits of values that their bins do not say.
fn own_bits(page: &[i64], placed: &[u8], bins: &Bins) -> Vec<u8> {
    let table = bins.table();
    if table.widest == 0 {
        return Vec::new();
    }
    let mut bits = Vec::with_capacity(page.len() * 2 + PADDING);
    let (mut word, mut used) = (0_u128, 0);
    for (value, bin) in page.iter().zip(placed) {
        let bin = usize::from(*bin);
        let own = value.wrapping_sub(table.starts[bin]).cast_unsigned();
        word |= u128::from(own) << used;
        used += u32::from(table.widths[bin]);
        if used >= u64::BITS {
            bits.extend((word as u64).to_le_bytes());
            word >>= u64::BITS;
            used -= u64::BITS;
        }
    }
    bits.extend(&word.to_le_bytes()[..used.div_ceil(8) as usize]);
    bits
}

/// What numbers are read as.
pub(super) trait Lane: Copy {
    /// The lowest bits.
    fn of(value: i64) -> Self;
}

impl Lane for i64 {
    fn of(value: i64) -> Self {
        value
    }
}

impl Lane for u32 {
    fn of(value: i64) -> Self {
        value as Self
    }
}

/// A column that can be read.
#[derive(Debug)]
pub(super) struct Numbers {
    table: Box<Table>,
    pages: Vec<Range<usize>>,
}

impl Numbers {
    /// Reads what stands before the pages. `blob` is the column without anything before or after.
    pub(super) fn parse(blob: &[u8], pages: usize) -> Result<Self, ChunkError> {
        let mut reader = Reader(blob);
        let table = Box::new(Bins::read(&mut reader)?);
        let mut ends = Vec::new();
        let mut end = 0_usize;
        for _ in 0..pages {
            end += reader.count(blob.len())?;
            ends.push(end);
        }
        let first = blob.len() - reader.0.len();
        if reader.0.len() != end + PADDING {
            return damaged("a column has another length than its pages");
        }
        let mut start = first;
        let mut ranges = Vec::with_capacity(pages);
        for end in ends {
            ranges.push(start..first + end);
            start = first + end;
        }
        Ok(Self { table, pages: ranges })
    }

    /// Whether all of its numbers surely are `u32`s.
    pub(super) fn is_short(&self) -> bool {
        self.table.is_short()
    }

    /// Appends the numbers of a page, which has `count` of them.
    pub(super) fn page<T: Lane>(
        &self,
        blob: &[u8],
        page: usize,
        count: usize,
        unpacker: &mut Unpacker,
        out: &mut Vec<T>,
    ) -> Result<(), ChunkError> {
        let Some(range) = self.pages.get(page) else { return damaged("it has too few pages") };
        let Some(body) = blob.get(range.clone()) else { return damaged("it is cut short") };
        let mut reader = Reader(body);
        let plane = unpacker.unpack(count, &mut reader)?;
        let bits = reader.bytes()?;
        reader.end()?;
        // The bits end their page: what follows them is the next page or the padding.
        let readable = &blob[range.end - bits.len()..];
        let table = &*self.table;
        let used = match plane {
            Plane::Equal(bin) => equal(table, bin, count, readable, out)?,
            Plane::Each(bins) => {
                let most = bins.iter().copied().max().unwrap_or(0);
                if usize::from(most) >= table.count {
                    return damaged("a value is in no bin");
                }
                if table.widest == 0 {
                    out.extend(bins.iter().map(|bin| T::of(table.starts[usize::from(*bin)])));
                    0
                } else if table.widest <= 56 {
                    narrow(table, bins, readable, out)?
                } else {
                    wide(table, bins, readable, out)?
                }
            }
        };
        if used.div_ceil(8) == bits.len() { Ok(()) } else { damaged("bits are missing or left") }
    }
}

/// All values are in one bin. Gives the number of bits that were read, as do the next two.
fn equal<T: Lane>(
    table: &Table,
    bin: u8,
    count: usize,
    bits: &[u8],
    out: &mut Vec<T>,
) -> Result<usize, ChunkError> {
    if count == 0 {
        return Ok(0);
    }
    if usize::from(bin) >= table.count {
        return damaged("a value is in no bin");
    }
    if table.widths[usize::from(bin)] == 0 {
        out.resize(out.len() + count, T::of(table.starts[usize::from(bin)]));
        return Ok(0);
    }
    wide(table, &vec![bin; count], bits, out)
}

/// Where no bin has more than 56 bits, each value's bits are within one unaligned word.
fn narrow<T: Lane>(
    table: &Table,
    bins: &[u8],
    bits: &[u8],
    out: &mut Vec<T>,
) -> Result<usize, ChunkError> {
    let mut at = 0_usize;
    let mut is_short = false;
    out.extend(bins.iter().map(|bin| {
        let (start, width) = table.bin(*bin);
        let word = bits.get(at / 8..).and_then(<[u8]>::first_chunk);
        is_short |= word.is_none();
        let word = u64::from_le_bytes(*word.unwrap_or(&[0; 8]));
        let own = (word >> (at % 8)) & !(u64::MAX << (width & 63));
        at += usize::from(width);
        T::of(start.wrapping_add(own.cast_signed()))
    }));
    if is_short { damaged("bits are missing") } else { Ok(at) }
}

fn wide<T: Lane>(
    table: &Table,
    bins: &[u8],
    bits: &[u8],
    out: &mut Vec<T>,
) -> Result<usize, ChunkError> {
    let mut at = 0_usize;
    out.reserve(bins.len());
    for bin in bins {
        let (start, width) = table.bin(*bin);
        let Some(words) = bits.get(at / 8..).and_then(<[u8]>::first_chunk) else {
            return damaged("bits are missing");
        };
        let own = (u128::from_le_bytes(*words) >> (at % 8)) as u64 & !(u64::MAX << (width & 63));
        out.push(T::of(start.wrapping_add(own.cast_signed())));
        at += usize::from(width);
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Numbers, Packer, Unpacker, encode};

    fn encoded(values: &[i64], pages: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, pages, &mut Packer::new(), &mut out);
        out
    }

    fn decode(blob: &[u8], pages: &[usize]) -> Result<Vec<i64>, super::ChunkError> {
        let numbers = Numbers::parse(blob, pages.len())?;
        let (mut out, mut unpacker) = (Vec::<i64>::new(), Unpacker::default());
        for (page, count) in pages.iter().enumerate() {
            numbers.page(blob, page, *count, &mut unpacker, &mut out)?;
        }
        Ok(out)
    }

    fn values() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![
            4 => -3_i64..200,
            2 => 1_795_219_200_000_i64..1_795_219_300_000,
            1 => any::<i64>(),
        ];
        prop_oneof![
            prop::collection::vec(value, 0..3_000),
            (any::<i64>(), 0_usize..3_000).prop_map(|(value, count)| vec![value; count]),
            prop::collection::vec(1_024_i64..2_048, 0..3_000),
        ]
    }

    proptest! {
        #[test]
        fn numbers_come_back_whatever_the_pages(values in values(), cut in 0.0..1.0) {
            let first = (values.len() as f64 * cut) as usize;
            let pages = [first, values.len() - first];
            let blob = encoded(&values, &pages);
            prop_assert_eq!(decode(&blob, &pages), Ok(values));
        }

        #[test]
        fn bytes_that_are_no_column_are_read_or_refused(
            values in values(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut: prop::sample::Index,
        ) {
            let pages = [values.len()];
            let mut blob = encoded(&values, &pages);
            for (at, byte) in damage {
                let at = at.index(blob.len());
                blob[at] ^= byte;
            }
            if let Ok(back) = decode(&blob, &pages) {
                prop_assert_eq!(back.len(), values.len());
            }
            prop_assert!(decode(&blob[..cut.index(blob.len())], &pages).is_err());
        }
    }

    #[test]
    fn what_is_equal_or_only_grows_takes_next_to_nothing() {
        let cases = [
            // values, bytes at most
            (vec![7; 16_384], 64),
            ((0..16_384).map(|n| n % 4).collect(), 400),
        ];
        for (values, most) in cases {
            let blob = encoded(&values, &[values.len()]);
            assert!(blob.len() <= most, "{} bytes of {:?}…", blob.len(), &values[..4]);
        }
    }
}
