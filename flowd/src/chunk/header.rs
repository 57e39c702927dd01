//! The header of a chunk: what can be said of it without any of its columns.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{
    ChunkError, ColumnId, MAX_ROWS, Number, PAGE_ROWS, VERSION,
    bytes::{Reader, put_signed, put_varint},
    error::damaged,
    layout::Shape,
    sums::{Fate, Sum},
};
use crate::flows::{Counters, Verdict};

/// How long a column is, and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) length: u32,
    pub(super) crc: u32,
}

impl Seal {
    pub(super) fn of(blob: &[u8]) -> Self {
        Self { length: blob.len() as u32, crc: crc32fast::hash(blob) }
    }
}

/// What can be said of a chunk without its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub(super) pages: Vec<Shape>,
    pub(super) zones: [(i64, i64); Number::ALL.len()],
    /// First-seen times of the flows that have their first record here.
    pub(super) opened: Option<(i64, i64)>,
    pub(super) totals: BTreeMap<Fate, Sum>,
    /// The clock has one entry for so many ids, as a power of two.
    pub(super) clock_shift: u32,
    /// Of the keys of the sums by minute.
    pub(super) step_minutes: u32,
    /// By number; a length of zero: there is none.
    pub(super) seals: [Seal; ColumnId::COUNT],
}

impl Header {
    /// The number of records.
    pub fn rows(&self) -> usize {
        self.pages.iter().map(|page| page.rows).sum()
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Between what a number lies; nothing of a chunk without records.
    pub fn zone(&self, number: Number) -> RangeInclusive<i64> {
        let (least, most) = self.zones[number as usize];
        least..=most
    }

    /// What all records add up to, by fate.
    pub fn totals(&self) -> &BTreeMap<Fate, Sum> {
        &self.totals
    }

    /// Between what the first-seen times lie of flows that have their first record here.
    pub fn opened(&self) -> Option<RangeInclusive<i64>> {
        self.opened.map(|(least, most)| least..=most)
    }

    /// Whether the chunk has a column. Sums that would be too long are left out.
    pub fn has(&self, column: ColumnId) -> bool {
        self.seals[column.index()].length != 0
    }

    /// The length of a column.
    pub fn column_bytes(&self, column: ColumnId) -> usize {
        self.seals[column.index()].length as usize
    }

    /// The minutes that a key of [`ColumnId::MinuteSums`] stands for: key × this, since 1970.
    pub fn step_minutes(&self) -> u32 {
        self.step_minutes
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { pages, zones, opened, totals, clock_shift, step_minutes, seals } = self;
        let mut out = vec![VERSION];
        put_varint(&mut out, self.rows() as u64);
        for Shape { rows: _, flows, peers: (first, last) } in pages {
            put_varint(&mut out, *flows as u64);
            put_varint(&mut out, u64::from(*first));
            put_varint(&mut out, u64::from(last - first));
        }
        for (least, most) in zones {
            put_signed(&mut out, *least);
            put_signed(&mut out, most.wrapping_sub(*least));
        }
        put_varint(&mut out, u64::from(opened.is_some()));
        if let Some((least, most)) = opened {
            put_signed(&mut out, *least);
            put_signed(&mut out, most.wrapping_sub(*least));
        }
        put_varint(&mut out, totals.len() as u64);
        for (fate, sum) in totals {
            put_varint(&mut out, u64::from(fate.verdict.number()));
            put_varint(&mut out, u64::from(fate.overflow) | u64::from(fate.inward) << 1);
            let Sum { records, flows, counters: c } = sum;
            for number in [records, flows, &c.rx_packets, &c.rx_bytes, &c.tx_packets, &c.tx_bytes] {
                put_varint(&mut out, *number);
            }
        }
        put_varint(&mut out, u64::from(*clock_shift));
        put_varint(&mut out, u64::from(*step_minutes));
        put_varint(&mut out, seals.len() as u64);
        for Seal { length, crc } in seals {
            put_varint(&mut out, u64::from(*length));
            out.extend(crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads a header, or refuses it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let body = version(bytes)?;
        let Some((body, crc)) = body.split_last_chunk() else {
            return damaged("its header is cut short");
        };
        if crc32fast::hash(&bytes[..bytes.len() - crc.len()]) != u32::from_le_bytes(*crc) {
            return damaged("its header has another checksum");
        }
        let mut reader = Reader(body);
        let header = Self {
            pages: pages(&mut reader)?,
            zones: zones(&mut reader)?,
            opened: match reader.count(1)? {
                0 => None,
                _ => Some(zone(&mut reader)?),
            },
            totals: totals(&mut reader)?,
            clock_shift: reader.count(63)? as u32,
            step_minutes: reader.count(u32::MAX as usize)? as u32,
            seals: seals(&mut reader)?,
        };
        reader.end()?;
        Ok(header)
    }
}

/// What follows the version.
pub(super) fn version(bytes: &[u8]) -> Result<&[u8], ChunkError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((found, _)) => Err(ChunkError::Version { found: *found, known: VERSION }),
        None => damaged("a part of it is empty"),
    }
}

fn pages(reader: &mut Reader<'_>) -> Result<Vec<Shape>, ChunkError> {
    let rows = reader.count(MAX_ROWS)?;
    let mut pages = Vec::new();
    for first_row in (0..rows).step_by(PAGE_ROWS) {
        let on_page = PAGE_ROWS.min(rows - first_row);
        let flows = reader.count(on_page)?;
        let first = reader.count(rows)?;
        let last = first + reader.count(rows - first)?;
        if flows == 0 {
            return damaged("a page has records of no flow");
        }
        pages.push(Shape { rows: on_page, flows, peers: (first as u32, last as u32) });
    }
    Ok(pages)
}

fn zone(reader: &mut Reader<'_>) -> Result<(i64, i64), ChunkError> {
    let least = reader.signed()?;
    Ok((least, least.wrapping_add(reader.signed()?)))
}

fn zones(reader: &mut Reader<'_>) -> Result<[(i64, i64); Number::ALL.len()], ChunkError> {
    let mut zones = [(0, 0); Number::ALL.len()];
    for slot in &mut zones {
        *slot = zone(reader)?;
    }
    Ok(zones)
}

fn totals(reader: &mut Reader<'_>) -> Result<BTreeMap<Fate, Sum>, ChunkError> {
    let mut totals = BTreeMap::new();
    for _ in 0..reader.count(64)? {
        let verdict = u8::try_from(reader.varint()?).ok().and_then(Verdict::from_number);
        let Some(verdict) = verdict else { return damaged("a sum is of an unknown verdict") };
        let words = reader.count(3)?;
        let fate = Fate { verdict, overflow: words & 1 != 0, inward: words & 2 != 0 };
        let (records, flows) = (reader.varint()?, reader.varint()?);
        let counters = Counters {
            rx_packets: reader.varint()?,
            rx_bytes: reader.varint()?,
            tx_packets: reader.varint()?,
            tx_bytes: reader.varint()?,
        };
        totals.insert(fate, Sum { records, flows, counters });
    }
    Ok(totals)
}

fn seals(reader: &mut Reader<'_>) -> Result<[Seal; ColumnId::COUNT], ChunkError> {
    if reader.varint()? != ColumnId::COUNT as u64 {
        return damaged("it has other columns than its version");
    }
    let mut seals = [Seal::default(); ColumnId::COUNT];
    for seal in &mut seals {
        let length = reader.count(u32::MAX as usize)? as u32;
        let crc = reader.take(4)?.first_chunk().copied().map_or(0, u32::from_le_bytes);
        *seal = Seal { length, crc };
    }
    Ok(seals)
}
