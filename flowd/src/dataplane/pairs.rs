//! Pairs of roles in buckets, as the kernel looks them up.

use flowd_common::{
    limits::BUCKET_PROBES,
    policy::{Head, Pair, PairBucket, PairSlot},
};

/// Pairs that a bucket of four has at most, on average.
const PAIRS_A_BUCKET: usize = 3;

/// A table of 2^n buckets.
pub(super) struct Buckets {
    all: Vec<PairBucket>,
}

impl Buckets {
    /// Puts every pair, with where its chain begins, into the smallest table that is not crowded.
    pub(super) fn of(pairs: &[(Pair, u32)]) -> Self {
        let mut count = pairs.len().div_ceil(PAIRS_A_BUCKET).next_power_of_two();
        loop {
            let mut buckets = Self { all: vec![PairBucket::default(); count] };
            if pairs.iter().all(|(pair, chain)| buckets.insert(*pair, *chain)) {
                return buckets;
            }
            count *= 2;
        }
    }

    /// `false`: there is no room where the kernel would look.
    fn insert(&mut self, pair: Pair, chain: u32) -> bool {
        let first = pair.bucket(self.bits()) as usize;
        for probe in 0..BUCKET_PROBES as usize {
            let index = (first + probe) % self.all.len();
            let PairBucket(slots) = &mut self.all[index];
            if let Some(free) = slots.iter_mut().find(|slot| slot.pair.from == 0) {
                *free = PairSlot { pair, chain };
                return true;
            }
        }
        false
    }

    pub(super) fn all(&self) -> &[PairBucket] {
        &self.all
    }

    /// What the head of the policy says of the table.
    pub(super) fn flags(&self) -> u64 {
        u64::from(self.bits()) << Head::BUCKET_BITS_SHIFT
    }

    fn bits(&self) -> u32 {
        self.all.len().ilog2()
    }
}

#[cfg(test)]
mod tests {
    use flowd_common::policy::{Head, Pair, find_chain};

    use super::Buckets;

    #[test]
    fn every_pair_is_found_and_no_other() {
        for count in [0, 1, 3, 4, 5, 1_000, 3 << 12, 100_000] {
            let pair = |n: u32| Pair { layer: n % 4, from: 1 + n % 1_009, to: 1 + n / 1_009 };
            let pairs: Vec<_> = (0..count).map(|n| (pair(n), n * 2)).collect();
            let buckets = Buckets::of(&pairs);
            let bits = Head(buckets.flags()).bucket_bits();
            let find = |pair| find_chain(|index| buckets.all().get(index as usize), bits, &pair);
            for (pair, chain) in &pairs {
                assert_eq!(find(*pair), Some(*chain), "{pair:?} of {count}");
            }
            for absent in (count..count + 1_000).map(pair) {
                assert_eq!(find(absent), None, "{absent:?} of {count}");
            }
            assert!(buckets.all().len() <= (count as usize * 4 / 3).max(1), "{count} is crowded");
        }
    }
}
