//! A map without slack: a value takes its own size and some ten bytes, where a hash table of that many
//! values doubles when it is full. What is removed goes back to the kernel.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

/// Values of one allocation.
const BLOCK: usize = 4_096;
/// An index of fewer places is not made smaller.
const SMALL: usize = 4_096;

/// At most `u32::MAX` values.
pub(super) struct DenseMap<K, V> {
    /// Full, but for the last.
    blocks: Vec<Vec<(K, V)>>,
    /// Where the value of a key is.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<K, V> Default for DenseMap<K, V> {
    fn default() -> Self {
        Self { blocks: Vec::new(), places: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<K: Eq + Hash, V> DenseMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let Self { blocks, places, hasher } = self;
        let is_here = |place: &u32| at(blocks, *place).0 == *key;
        places.find(hasher.hash_one(key), is_here).map(|place| &at(blocks, *place).1)
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let Self { blocks, places, hasher } = self;
        let next = u32::try_from(places.len()).expect("the kernel's tables have fewer entries");
        let is_here = |place: &u32| at(blocks, *place).0 == key;
        let hash_of = |place: &u32| hasher.hash_one(&at(blocks, *place).0);
        match places.entry(hasher.hash_one(&key), is_here, hash_of) {
            Entry::Occupied(place) => {
                let (block, inside) = split(*place.get());
                blocks[block][inside].1 = value;
            }
            Entry::Vacant(place) => {
                place.insert(next);
                if blocks.last().is_none_or(|block| block.len() == BLOCK) {
                    blocks.push(Vec::with_capacity(BLOCK));
                }
                blocks.last_mut().expect("there is room").push((key, value));
            }
        }
    }

    /// Forgets every value that is not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool)
    where
        K: Copy,
    {
        // From the end: what takes the place of a value that goes has been looked at.
        for place in (0..self.places.len()).rev() {
            let place = u32::try_from(place).expect("it was a place");
            let (key, value) = at(&self.blocks, place);
            if !keep(value) {
                let key = *key;
                self.remove(&key);
            }
        }
    }

    /// Forgets a key. The last value takes the place of its value.
    pub(super) fn remove(&mut self, key: &K) {
        let Self { blocks, places, hasher } = self;
        let is_here = |place: &u32| at(blocks, *place).0 == *key;
        let Ok(found) = places.find_entry(hasher.hash_one(key), is_here) else { return };
        let (hole, _) = found.remove();
        let block = blocks.last_mut().expect("there is a value");
        let last = block.pop().expect("the last block is not empty");
        if block.is_empty() {
            blocks.pop();
        }
        let from = u32::try_from(places.len()).expect("it was a place");
        if hole != from {
            let place = places.find_mut(hasher.hash_one(&last.0), |place| *place == from);
            *place.expect("every value has a place") = hole;
            let (block, inside) = split(hole);
            blocks[block][inside] = last;
        }
        if places.capacity() > SMALL && places.len() < places.capacity() / 4 {
            places.shrink_to(places.len() * 2, |place| hasher.hash_one(&at(blocks, *place).0));
        }
    }
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / BLOCK, place as usize % BLOCK)
}

fn at<K, V>(blocks: &[Vec<(K, V)>], place: u32) -> &(K, V) {
    let (block, inside) = split(place);
    &blocks[block][inside]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{BLOCK, DenseMap};

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0_u8..40, any::<u32>()), 0..400)) {
            let mut map = DenseMap::default();
            let mut model = HashMap::new();
            for (is_set, key, value) in steps {
                if is_set {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    map.remove(&key);
                    model.remove(&key);
                }
                prop_assert_eq!(map.len(), model.len());
            }
            map.retain(|value| value % 3 != 0);
            model.retain(|_, value| *value % 3 != 0);
            prop_assert_eq!(map.len(), model.len());
            for key in 0..40 {
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
        }
    }

    #[test]
    fn it_has_no_slack_and_gives_back_what_it_does_not_use() {
        let mut map = DenseMap::default();
        let count = 10 * BLOCK as u32 + 1;
        (0..count).for_each(|key| map.insert(key, key));
        assert_eq!(map.blocks.len(), 11);
        assert!((0..count).all(|key| map.get(&key) == Some(&key)));
        (0..count).filter(|key| key % 1_000 != 0).for_each(|key| map.remove(&key));
        assert_eq!((map.len(), map.blocks.len()), (41, 1));
        assert!(map.places.capacity() <= 2 * super::SMALL);
        assert!((0..count).all(|key| map.get(&key).is_some() == (key % 1_000 == 0)));
    }
}
