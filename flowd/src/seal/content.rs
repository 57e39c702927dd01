//! What a day's records are, as hashes: one for each range of numbers, so that one that is wrong
//! names the records it speaks of.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    Hash, SectionSeal,
    encode::{self, Named},
};
use crate::{chunk::Row, flows::Counters};

/// Record ids of one range, at least.
pub const RANGE_IDS: u64 = 4_096;
/// Ranges of one day, but for one that is begun; days with more records have longer ones.
const RANGES: u64 = 256;
/// Holes that are told one by one.
const HOLES: usize = 8;

/// How many record ids a range of a day with these records has: a power of two.
pub fn range_ids((first, last): (u64, u64)) -> u64 {
    let ids = last.saturating_sub(first).saturating_add(1);
    ids.div_ceil(RANGES).clamp(RANGE_IDS, 1 << 62).next_power_of_two()
}

/// Records as they come, by ascending id.
#[derive(Debug)]
pub struct Content {
    bounds: Option<(u64, u64)>,
    range_ids: u64,
    ranges: Vec<Sha256>,
    buffer: Vec<u8>,
    last: Option<u64>,
    contents: Contents,
}

/// All of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Within the bounds.
    pub records: u64,
    /// That have their first record here; overflow is no flow.
    pub flows: u64,
    /// What the records did.
    pub counters: Counters,
    /// Of every range within the bounds.
    pub ranges: Vec<Hash>,
    /// What is there besides, by its name.
    pub sections: BTreeMap<String, SectionSeal>,
    /// First and last id that no record has, within the bounds; the first few.
    pub holes: Vec<(u64, u64)>,
    /// Ids that came out of order, or twice; the first few.
    pub disorder: Vec<u64>,
    /// First and last id of the records that are out of bounds.
    pub outside: Option<(u64, u64)>,
}

impl Content {
    /// Of the records with ids in `bounds`, first and last; others are only noticed.
    pub fn new(bounds: Option<(u64, u64)>, range_ids: u64) -> Self {
        let count = bounds.map_or(0, |(first, last)| {
            last.checked_sub(first).map_or(0, |_| last / range_ids - first / range_ids + 1)
        });
        let ranges = vec![Sha256::new(); usize::try_from(count).unwrap_or_default()];
        let (buffer, contents) = (Vec::new(), Contents::default());
        Self { bounds, range_ids, ranges, buffer, last: None, contents }
    }

    /// Takes the next one.
    pub fn record(&mut self, row: &Row, named: &Named<'_>) {
        let (id, contents) = (row.record_id, &mut self.contents);
        let Some((first, _)) = self.bounds.filter(|(first, last)| (*first..=*last).contains(&id))
        else {
            let (least, most) = contents.outside.unwrap_or((id, id));
            contents.outside = Some((least.min(id), most.max(id)));
            return;
        };
        let next = self.last.map_or(first, |last| last + 1);
        if id < next {
            few(&mut contents.disorder, id);
        } else {
            if id > next {
                few(&mut contents.holes, (next, id - 1));
            }
            self.last = Some(id);
        }
        contents.records += 1;
        contents.flows += u64::from(!row.overflow && row.opens());
        add(&mut contents.counters, &row.counters);
        self.buffer.clear();
        encode::record(&mut self.buffer, row, named);
        let range = id / self.range_ids - first / self.range_ids;
        self.ranges[usize::try_from(range).expect("there are few ranges")].update(&self.buffer);
    }

    /// What is there besides.
    pub fn section(&mut self, name: &str, section: SectionSeal) {
        self.contents.sections.insert(name.to_owned(), section);
    }

    /// All of it.
    pub fn done(self) -> Contents {
        let Self { bounds, ranges, last, mut contents, .. } = self;
        if let Some((first, end)) = bounds {
            let next = last.map_or(first, |last| last + 1);
            if next <= end {
                few(&mut contents.holes, (next, end));
            }
        }
        contents.ranges = ranges.into_iter().map(Hash::done).collect();
        contents
    }
}

impl Contents {
    /// One hash of everything.
    pub fn sha256(&self) -> Hash {
        let mut out = b"flowd content 1\n".to_vec();
        out.extend((self.ranges.len() as u64).to_be_bytes());
        self.ranges.iter().for_each(|Hash(hash)| out.extend(hash));
        for (name, SectionSeal { rows, sha256: Hash(hash) }) in &self.sections {
            encode::text(&mut out, name);
            out.extend(rows.to_be_bytes());
            out.extend(hash);
        }
        Hash::of(&out)
    }
}

fn few<T>(found: &mut Vec<T>, one: T) {
    if found.len() < HOLES {
        found.push(one);
    }
}

/// A file that somebody wrote may have any numbers.
fn add(sum: &mut Counters, one: &Counters) {
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = one;
    sum.rx_packets = sum.rx_packets.saturating_add(*rx_packets);
    sum.rx_bytes = sum.rx_bytes.saturating_add(*rx_bytes);
    sum.tx_packets = sum.tx_packets.saturating_add(*tx_packets);
    sum.tx_bytes = sum.tx_bytes.saturating_add(*tx_bytes);
}
