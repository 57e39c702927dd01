//! One column of numbers: bins, then a page after the other. A page is read without the others.

use std::ops::{Range, RangeInclusive};

use super::{
    ChunkError,
    bins::{Bins, MOST_BINS, Table},
    bytes::{Reader, put_bytes, put_varint},
    error::damaged,
    narrow::places,
    plane::{Packer, Plane, Planes, Unpacker, is_packed},
};

/// So many zero bytes follow the last bits: bits are read some words at a time.
const PADDING: usize = 16;
/// Bits that are within one unaligned word.
const SHORT: u8 = 56;
/// Bins that are looked for one after the other, many values at a time; of more, each value is looked
/// up.
const FEW: usize = 16;

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
    planes: Planes,
}

impl Numbers {
    /// The memory that it takes beside the column, if planes are kept, and pages have so many numbers.
    pub(super) fn most_bytes(&self, blob: &[u8], counts: impl Iterator<Item = usize>) -> usize {
        let packed = self.pages.iter().map(|page| is_packed(&blob[page.clone()]));
        let planes: usize = packed.zip(counts).filter(|(packed, _)| *packed).map(|(_, n)| n).sum();
        size_of_val(&*self.table) + size_of_val(&self.pages[..]) + self.planes.bytes() + planes
    }

    /// From now on planes are kept.
    pub(super) fn keep_planes(&self) {
        self.planes.keep();
    }

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
        Ok(Self { table, pages: ranges, planes: Planes::new(pages) })
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
        let (plane, bits, readable) = self.open(blob, page, count, unpacker)?;
        let table = &*self.table;
        let used = match plane {
            Plane::Equal(bin) => equal(table, bin, count, readable, out)?,
            Plane::Each(bins) if table.widest == 0 => {
                out.extend(bins.iter().map(|bin| T::of(table.starts[usize::from(*bin)])));
                0
            }
            Plane::Each(bins) if table.widest <= SHORT => narrow(table, bins, readable, out)?,
            Plane::Each(bins) => wide(table, bins, readable, out)?,
        };
        if used.div_ceil(8) == bits { Ok(()) } else { damaged("bits are missing or left") }
    }

    /// Appends some of the numbers of a page, which has `count` of them. `places` ascend and are
    /// below that. Of the others nothing is read but how many bits they have.
    pub(super) fn some<T: Lane>(
        &self,
        blob: &[u8],
        (page, count): (usize, usize),
        places: &[u16],
        unpacker: &mut Unpacker,
        out: &mut Vec<T>,
    ) -> Result<(), ChunkError> {
        let (plane, _, readable) = self.open(blob, page, count, unpacker)?;
        let table = &*self.table;
        let mut is_short = false;
        let mut value = |bin: u8, at: usize| {
            let (start, width) = table.bin(bin);
            let own = if table.widest <= SHORT {
                few_bits(readable, at, width)
            } else {
                many_bits(readable, at, width)
            };
            is_short |= own.is_none();
            T::of(start.wrapping_add(own.unwrap_or_default().cast_signed()))
        };
        let each = places.iter().map(|place| usize::from(*place));
        match plane {
            Plane::Equal(bin) => {
                let (_, width) = table.bin(bin);
                out.extend(each.map(|place| value(bin, place * usize::from(width))));
            }
            Plane::Each(bins) if table.widest == 0 => {
                out.extend(each.map(|place| T::of(table.bin(bins[place]).0)));
            }
            Plane::Each(bins) => {
                let each = each.zip(offsets(table, bins, places));
                out.extend(each.map(|(place, at)| value(bins[place], at as usize)));
            }
        }
        if is_short { damaged("bits are missing") } else { Ok(()) }
    }

    /// Of each number of a page, which has `count` of them, what `judge` says. It is asked of the bins
    /// first, and where it does not say the same of all that may be in one, of the numbers there; of
    /// a single one that can be, it says something.
    pub(super) fn judged(
        &self,
        blob: &[u8],
        (page, count): (usize, usize),
        judge: impl Fn(RangeInclusive<i64>) -> Option<bool>,
        unpacker: &mut Unpacker,
    ) -> Result<Vec<bool>, ChunkError> {
        let (plane, _, bits) = self.open(blob, page, count, unpacker)?;
        let table = &*self.table;
        let (mut is_true, mut is_open) = ([false; MOST_BINS], [false; MOST_BINS]);
        for (bin, range) in table.ranges().enumerate() {
            let judged = judge(range);
            (is_true[bin], is_open[bin]) = (judged == Some(true), judged.is_none());
        }
        let bins = match plane {
            Plane::Equal(bin) => &vec![bin; count],
            Plane::Each(bins) => bins,
        };
        let mut judged = marked(bins, &is_true);
        if is_open.contains(&true) {
            let open = places(&marked(bins, &is_open));
            for (place, at) in open.iter().zip(offsets(table, bins, &open)) {
                let place = usize::from(*place);
                let (start, width) = table.bin(bins[place]);
                let own = many_bits(bits, at as usize, width);
                let value = own.map(|own| start.wrapping_add(own.cast_signed()));
                let Some(of_value) = value.and_then(|value| judge(value..=value)) else {
                    return damaged("a value is in no dictionary");
                };
                judged[place] = of_value;
            }
        }
        Ok(judged)
    }

    /// The bins of a page, how many bytes of bits it has, and these with what follows them: the
    /// next page or the padding.
    fn open<'a>(
        &'a self,
        blob: &'a [u8],
        page: usize,
        count: usize,
        unpacker: &'a mut Unpacker,
    ) -> Result<(Plane<'a>, usize, &'a [u8]), ChunkError> {
        let Some(range) = self.pages.get(page) else { return damaged("it has too few pages") };
        let Some(body) = blob.get(range.clone()) else { return damaged("it is cut short") };
        let mut reader = Reader(body);
        let plane = unpacker.unpack(count, &mut reader, self.planes.place(page))?;
        let bits = reader.bytes()?.len();
        reader.end()?;
        let most = match plane {
            Plane::Equal(bin) => bin,
            Plane::Each(bins) => bins.iter().copied().max().unwrap_or(0),
        };
        if usize::from(most) >= self.table.count && count > 0 {
            return damaged("a value is in no bin");
        }
        Ok((plane, bits, &blob[range.end - bits..]))
    }
}

/// Of each value, whether its bin is one of those.
fn marked(bins: &[u8], wanted: &[bool; MOST_BINS]) -> Vec<bool> {
    let mut found: Vec<u8> = Vec::with_capacity(FEW);
    for (bin, _) in (0..=u8::MAX).zip(wanted).filter(|(_, wanted)| **wanted) {
        if found.len() == FEW {
            return bins.iter().map(|bin| wanted[usize::from(*bin)]).collect();
        }
        found.push(bin);
    }
    let mut marked = vec![false; bins.len()];
    for one in found {
        marked.iter_mut().zip(bins).for_each(|(marked, bin)| *marked |= *bin == one);
    }
    marked
}

/// Where the bits begin of the values at these places, which ascend; anywhere, if one has none.
fn offsets(table: &Table, bins: &[u8], places: &[u16]) -> Vec<u32> {
    let has_bits = |place: &u16| table.bin(bins[usize::from(*place)]).1 > 0;
    // What is behind the last one that has bits is not looked at.
    let Some(last) = places.iter().rposition(has_bits) else { return vec![0; places.len()] };
    let width = |bin: &u8| u32::from(table.widths[usize::from(*bin)]);
    let (mut at, mut from) = (0, 0);
    let mut offsets = Vec::with_capacity(places.len());
    for place in &places[..=last] {
        let place = usize::from(*place);
        at += bins[from..place].iter().map(width).sum::<u32>();
        from = place;
        offsets.push(at);
    }
    offsets.resize(places.len(), 0);
    offsets
}

/// All values are in one bin. Gives the number of bits that were read, as do the next two.
fn equal<T: Lane>(
    table: &Table,
    bin: u8,
    count: usize,
    bits: &[u8],
    out: &mut Vec<T>,
) -> Result<usize, ChunkError> {
    if count > 0 && table.widths[usize::from(bin)] == 0 {
        out.resize(out.len() + count, T::of(table.starts[usize::from(bin)]));
        return Ok(0);
    }
    wide(table, &vec![bin; count], bits, out)
}

/// Where no bin has more bits than are [`SHORT`].
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
        let own = few_bits(bits, at, width);
        is_short |= own.is_none();
        at += usize::from(width);
        T::of(start.wrapping_add(own.unwrap_or_default().cast_signed()))
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
        let Some(own) = many_bits(bits, at, width) else { return damaged("bits are missing") };
        out.push(T::of(start.wrapping_add(own.cast_signed())));
        at += usize::from(width);
    }
    Ok(at)
}

/// So many bits from a place on, if they are [`SHORT`]: they are within one unaligned word.
fn few_bits(bits: &[u8], at: usize, width: u8) -> Option<u64> {
    let word = bits.get(at / 8..).and_then(<[u8]>::first_chunk)?;
    Some((u64::from_le_bytes(*word) >> (at % 8)) & !(u64::MAX << (width & 63)))
}

fn many_bits(bits: &[u8], at: usize, width: u8) -> Option<u64> {
    let words = bits.get(at / 8..).and_then(<[u8]>::first_chunk)?;
    Some((u128::from_le_bytes(*words) >> (at % 8)) as u64 & !(u64::MAX << (width & 63)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FEW, MOST_BINS, Numbers, Packer, RangeInclusive, Unpacker, encode, marked};

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
        fn those_are_marked_whose_bin_is_wanted(
            bins in prop::collection::vec(any::<u8>(), 0..90),
            wanted in prop::collection::vec(any::<u8>(), 0..2 * FEW),
        ) {
            let mut is_wanted = [false; MOST_BINS];
            wanted.iter().for_each(|bin| is_wanted[usize::from(*bin)] = true);
            let expected: Vec<bool> = bins.iter().map(|bin| wanted.contains(bin)).collect();
            prop_assert_eq!(marked(&bins, &is_wanted), expected);
        }

        #[test]
        fn numbers_come_back_whatever_the_pages(values in values(), cut in 0.0..1.0) {
            let first = (values.len() as f64 * cut) as usize;
            let pages = [first, values.len() - first];
            let blob = encoded(&values, &pages);
            prop_assert_eq!(decode(&blob, &pages), Ok(values));
        }

        #[test]
        fn some_numbers_are_those_of_their_places(values in values(), is_wanted: u64) {
            let pages = [values.len()];
            let blob = encoded(&values, &pages);
            let places: Vec<u16> =
                (0..values.len() as u16).filter(|place| is_wanted >> (place % 64) & 1 == 1).collect();
            let expected: Vec<i64> =
                places.iter().map(|place| values[usize::from(*place)]).collect();
            let numbers = Numbers::parse(&blob, 1).unwrap();
            let (mut out, mut unpacker) = (Vec::<i64>::new(), Unpacker::default());
            let page = (0, values.len());
            numbers.some(&blob, page, &places, &mut unpacker, &mut out).unwrap();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn what_is_judged_of_bins_is_true_of_each_number(
            values in values(),
            ends in (-3_i64..200, prop_oneof![-3_i64..1_100, any::<i64>()]),
        ) {
            let range = ends.0.min(ends.1)..=ends.0.max(ends.1);
            let blob = encoded(&values, &[values.len()]);
            let inside = |bin: RangeInclusive<i64>| {
                let (first, last) = (range.contains(bin.start()), range.contains(bin.end()));
                let is_around = bin.contains(range.start());
                if first && last { Some(true) } else { (!first && !last && !is_around).then_some(false) }
            };
            let numbers = Numbers::parse(&blob, 1).unwrap();
            let page = (0, values.len());
            let judged = numbers.judged(&blob, page, inside, &mut Unpacker::default()).unwrap();
            let expected: Vec<bool> = values.iter().map(|value| range.contains(value)).collect();
            prop_assert_eq!(judged, expected);
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
