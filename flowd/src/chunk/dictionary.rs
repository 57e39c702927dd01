//! Dictionaries: each entry once, records have its position.

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::RandomState;

use super::{
    ChunkError,
    entry::Entry,
    error::damaged,
    plane::{Packer, Unpacker},
    sheet::{self, Sheet},
};

/// Gives entries numbers in the order in which they come.
pub(super) struct Collector<T> {
    // Whoever sends packets chooses addresses: the seed is random.
    codes: HashMap<T, u32, RandomState>,
    entries: Vec<(T, u32)>,
    /// What came last: the next one is often the same.
    last: Option<(T, u32)>,
}

impl<T: Copy + Eq + Hash> Collector<T> {
    pub(super) fn new() -> Self {
        Self { codes: HashMap::default(), entries: Vec::new(), last: None }
    }

    /// The number of an entry.
    pub(super) fn code(&mut self, entry: T) -> u32 {
        let code = match self.last {
            Some((last, code)) if last == entry => code,
            _ => *self.codes.entry(entry).or_insert_with(|| {
                self.entries.push((entry, 0));
                self.entries.len() as u32 - 1
            }),
        };
        self.entries[code as usize].1 += 1;
        self.last = Some((entry, code));
        code
    }

    /// The entries in the order of their numbers.
    pub(super) fn by_code(self) -> Vec<T> {
        self.entries.into_iter().map(|(entry, _)| entry).collect()
    }

    /// The entries, the most frequent first, and the position of each number there.
    pub(super) fn by_frequency(self) -> (Vec<T>, Vec<u32>) {
        self.by_key(|(_, count)| std::cmp::Reverse(*count))
    }

    /// The entries, ascending, and the position of each number there.
    pub(super) fn ascending(self) -> (Vec<T>, Vec<u32>)
    where
        T: Ord,
    {
        self.by_key(|(entry, _)| *entry)
    }

    fn by_key<K: Ord>(self, key: impl Fn(&(T, u32)) -> K) -> (Vec<T>, Vec<u32>) {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_by_key(|code| key(&self.entries[*code as usize]));
        let mut positions = vec![0; order.len()];
        for (position, code) in order.iter().enumerate() {
            positions[*code as usize] = position as u32;
        }
        (order.iter().map(|code| self.entries[*code as usize].0).collect(), positions)
    }
}

/// The blob of a dictionary.
pub(super) fn encode<const WIDTH: usize, T: Entry<WIDTH>>(
    entries: &[T],
    packer: &mut Packer,
) -> Vec<u8> {
    let rows: Vec<[i64; WIDTH]> = entries.iter().map(T::to_numbers).collect();
    sheet::encode(&rows, packer)
}

/// Reads what [`encode`] wrote after its version; at most `most` entries.
pub(super) fn decode<const WIDTH: usize, T: Entry<WIDTH>>(
    body: &[u8],
    most: usize,
    unpacker: &mut Unpacker,
) -> Result<Vec<T>, ChunkError> {
    let sheet = Sheet::<WIDTH>::parse(body, most)?;
    let mut columns = [const { Vec::new() }; WIDTH];
    for (number, values) in columns.iter_mut().enumerate() {
        values.reserve_exact(sheet.rows);
        sheet.column(number, unpacker, values)?;
    }
    let columns = columns.each_ref().map(|values| &values[..sheet.rows]);
    let mut entries = Vec::with_capacity(sheet.rows);
    for row in 0..sheet.rows {
        let Some(entry) = T::from_numbers(&columns.map(|values| values[row])) else {
            return damaged("a dictionary has an entry that stands for nothing");
        };
        entries.push(entry);
    }
    Ok(entries)
}
