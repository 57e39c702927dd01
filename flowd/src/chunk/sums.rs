//! Sums: what groups of a chunk's records add up to, so that many questions need no record.

use super::{
    ChunkError,
    error::damaged,
    plane::{Packer, Unpacker},
    sheet::{self, Sheet},
};
use crate::flows::{Counters, Verdict};

/// What some records add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Records.
    pub records: u64,
    /// Those that are the first of their flow; overflow is no flow.
    pub flows: u64,
    /// What was counted in their windows.
    pub counters: Counters,
}

impl Sum {
    /// Adds another. Sums that no record could have wrap around.
    pub fn absorb(&mut self, other: &Self) {
        let Self { records, flows, counters: c } = other;
        self.records = self.records.wrapping_add(*records);
        self.flows = self.flows.wrapping_add(*flows);
        let own = &mut self.counters;
        own.rx_packets = own.rx_packets.wrapping_add(c.rx_packets);
        own.rx_bytes = own.rx_bytes.wrapping_add(c.rx_bytes);
        own.tx_packets = own.tx_packets.wrapping_add(c.tx_packets);
        own.tx_bytes = own.tx_bytes.wrapping_add(c.tx_bytes);
    }

    fn to_numbers(self) -> [i64; 6] {
        let Self { records, flows, counters: c } = self;
        [records, flows, c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes].map(u64::cast_signed)
    }

    /// Puts in one of the numbers, in the order of [`Self::to_numbers`].
    fn set(&mut self, number: usize, value: u64) {
        let Self { records, flows, counters: c } = self;
        let all = [
            records,
            flows,
            &mut c.rx_packets,
            &mut c.rx_bytes,
            &mut c.tx_packets,
            &mut c.tx_bytes,
        ];
        *all[number] = value;
    }
}

/// What a policy made of packets: sums are never mixed over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fate {
    /// What the policy says.
    pub verdict: Verdict,
    /// Of no flow.
    pub overflow: bool,
    /// Whether the other end opened the flow: then the inside end is the destination.
    pub inward: bool,
}

impl Fate {
    pub(super) const COUNT: usize = 8;

    /// Below [`Self::COUNT`].
    pub(super) fn index(self) -> usize {
        let denied = usize::from(self.verdict == Verdict::Deny);
        usize::from(self.overflow) | usize::from(self.inward) << 1 | denied << 2
    }

    /// All, by index.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Verdict::Allow, Verdict::Deny].into_iter().flat_map(|verdict| {
            [false, true].into_iter().flat_map(move |inward| {
                [false, true].map(|overflow| Self { verdict, overflow, inward })
            })
        })
    }

    fn number(self) -> i64 {
        let words = u8::from(self.overflow) | u8::from(self.inward) << 1;
        i64::from(words) | i64::from(self.verdict.number()) << 2
    }

    fn from_number(number: i64) -> Option<Self> {
        let verdict = Verdict::from_number(u8::try_from(number >> 2).ok()?)?;
        Some(Self { verdict, overflow: number & 1 != 0, inward: number & 2 != 0 })
    }
}

/// Sums by a key, whose meaning is the column's, and fate: ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(pub Vec<((i64, Fate), Sum)>);

impl FromIterator<((i64, Fate), Sum)> for Sums {
    /// Sums of one key and fate are added up.
    fn from_iter<I: IntoIterator<Item = ((i64, Fate), Sum)>>(sums: I) -> Self {
        let mut sums: Vec<((i64, Fate), Sum)> = sums.into_iter().collect();
        sums.sort_by_key(|(key, _)| *key);
        sums.dedup_by(|(key, sum), (before, added)| {
            let is_same = key == before;
            if is_same {
                added.absorb(sum);
            }
            is_same
        });
        Self(sums)
    }
}

impl Sums {
    pub(super) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let mut before = 0;
        let rows: Vec<[i64; 8]> = self
            .0
            .iter()
            .map(|((key, fate), sum)| {
                let step = key.wrapping_sub(before);
                before = *key;
                let [a, b, c, d, e, f] = sum.to_numbers();
                [step, fate.number(), a, b, c, d, e, f]
            })
            .collect();
        sheet::encode(&rows, packer)
    }

    /// Reads what [`Self::encode`] wrote after its version.
    pub(super) fn decode(
        body: &[u8],
        most: usize,
        unpacker: &mut Unpacker,
    ) -> Result<Self, ChunkError> {
        Self::decode_some(body, most, unpacker, |_key| true)
    }

    /// The same of the keys that are wanted; of the others no number is made.
    pub(super) fn decode_some(
        body: &[u8],
        most: usize,
        unpacker: &mut Unpacker,
        is_wanted: impl Fn(i64) -> bool,
    ) -> Result<Self, ChunkError> {
        let sheet = Sheet::<8>::parse(body, most)?;
        let (mut steps, mut values) = (Vec::new(), Vec::new());
        sheet.column(0, unpacker, &mut steps)?;
        sheet.column(1, unpacker, &mut values)?;
        let (mut sums, mut places) = (Vec::new(), Vec::new());
        let mut before: Option<(i64, Fate)> = None;
        for (place, (step, fate)) in steps.iter().zip(&values).enumerate() {
            let key = before.map_or(0, |(key, _)| key).wrapping_add(*step);
            let Some(fate) = Fate::from_number(*fate) else {
                return damaged("a sum is of an unknown kind");
            };
            if before.is_some_and(|before| before >= (key, fate)) {
                return damaged("a sum stands there twice, or in the wrong place");
            }
            before = Some((key, fate));
            if is_wanted(key) {
                sums.push(((key, fate), Sum::default()));
                places.push(place);
            }
        }
        // It may stay for a while.
        sums.shrink_to_fit();
        if !sums.is_empty() {
            for (number, column) in (2..8).enumerate() {
                sheet.column(column, unpacker, &mut values)?;
                for ((_, sum), place) in sums.iter_mut().zip(&places) {
                    sum.set(number, values[*place].cast_unsigned());
                }
            }
        }
        Ok(Self(sums))
    }
}
