//! The chain as it was read: which of its statements a key proves, and where it is broken.
//!
//! - A key signs from its own statement on, until it says which key is next.
//! - Who trusts a key trusts those that it named, and those that it was named by: it signed what has
//!   their hashes.
//! - A key that nobody named proves nothing to those who do not know it.

use std::collections::BTreeMap;

use super::{FORMAT, Hash, PublicKey, Seal, Statement, Tombstone, What};

/// Every line of a chain, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Those that can be read.
    pub links: Vec<Link>,
    /// What is wrong with it, whoever's key it is.
    pub breaks: Vec<Break>,
    /// Bytes up to the end of the last whole line.
    pub whole_bytes: usize,
    /// Whether something follows those.
    pub has_rest: bool,
    /// Number and hash that the next statement goes on from.
    pub head: (u64, Hash),
}

/// A statement of the chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it says.
    pub statement: Statement,
    /// Its hash.
    pub hash: Hash,
    /// Whether the key that it names has signed it.
    pub is_signed: bool,
}

/// Where a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// A line, from 1, that is no statement.
    Unreadable(u64),
    /// A statement of a newer flowd.
    Newer(u64),
    /// A statement that is not as it was signed.
    Edited(u64),
    /// A statement that is not in its place.
    Reordered(u64),
    /// Statements that are not there, first and last.
    Missing(u64, u64),
    /// A statement that follows another one than the one before it.
    Unlinked(u64),
    /// A statement that is signed with a key whose turn it is not.
    Stranger(u64),
}

/// Statements that one key has signed, one after another.
struct Turn {
    key: PublicKey,
    /// Whether the key before named it.
    is_named: bool,
    from: usize,
}

impl Chain {
    /// What a file has.
    pub fn read(bytes: &[u8]) -> Self {
        let whole_bytes = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut chain =
            Self { whole_bytes, has_rest: whole_bytes < bytes.len(), ..Self::default() };
        let lines = bytes[..whole_bytes].split_inclusive(|byte| *byte == b'\n');
        for (number, line) in (1..).zip(lines) {
            let line = std::str::from_utf8(&line[..line.len() - 1]).ok();
            match line.and_then(Statement::read) {
                Some((statement, hash, is_signed)) => chain.take(statement, hash, is_signed),
                None => chain.breaks.push(Break::Unreadable(number)),
            }
        }
        let keys = chain.turns();
        let mut turn = keys.iter().peekable();
        let mut key = None;
        for (index, link) in chain.links.iter().enumerate() {
            if let Some(next) = turn.next_if(|turn| turn.from == index) {
                key = Some(next.key);
            }
            if key != Some(link.statement.key) {
                chain.breaks.push(Break::Stranger(link.statement.number));
            }
        }
        chain
    }

    /// Adds what was just said, and goes on from the head.
    pub(crate) fn add(&mut self, statement: Statement, hash: Hash) {
        self.take(statement, hash, true);
    }

    fn take(&mut self, statement: Statement, hash: Hash, is_signed: bool) {
        let (last, previous) = self.head;
        let number = statement.number;
        if statement.format > FORMAT {
            self.breaks.push(Break::Newer(number));
        }
        if !is_signed {
            self.breaks.push(Break::Edited(number));
        }
        if number <= last {
            self.breaks.push(Break::Reordered(number));
        } else if number > last + 1 {
            self.breaks.push(Break::Missing(last + 1, number - 1));
        } else if statement.previous != previous {
            self.breaks.push(Break::Unlinked(number));
        }
        self.head = (number.max(last), hash);
        self.links.push(Link { statement, hash, is_signed });
    }

    fn turns(&self) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        for (from, link) in self.links.iter().enumerate() {
            let Link { statement, is_signed, .. } = link;
            if *is_signed && statement.what == What::Key {
                let before = from.checked_sub(1).map(|before| &self.links[before]);
                let is_named = before.is_some_and(|before| {
                    before.is_signed
                        && before.hash == statement.previous
                        && turns.last().is_some_and(|turn| turn.key == before.statement.key)
                        && before.statement.what == What::Rotate { next: statement.key }
                });
                turns.push(Turn { key: statement.key, is_named, from });
            }
        }
        turns
    }

    /// The key whose turn it is.
    pub fn key(&self) -> Option<PublicKey> {
        self.turns().last().map(|turn| turn.key)
    }

    /// Every key, the number of its first statement, and whether the key before named it: the first
    /// one, and one that follows a key that was lost, nobody named.
    pub fn keys(&self) -> Vec<(PublicKey, u64, bool)> {
        let number = |turn: &Turn| self.links[turn.from].statement.number;
        self.turns().iter().map(|turn| (turn.key, number(turn), turn.is_named)).collect()
    }

    /// These keys, and those that named them or that they named, one after another.
    pub fn trusted(&self, keys: &[PublicKey]) -> Vec<PublicKey> {
        let turns = self.turns();
        let trusted = trusted(&turns, keys);
        let named = turns.iter().zip(trusted).filter_map(|(turn, is)| is.then_some(turn.key));
        keys.iter().copied().chain(named).collect()
    }

    /// Of each link, whether these keys prove it.
    pub fn proven(&self, keys: &[PublicKey]) -> Vec<bool> {
        let turns = self.turns();
        let trusted = trusted(&turns, keys);
        let turn_of =
            |index: usize| turns.partition_point(|turn| turn.from <= index).checked_sub(1);
        let is_proven = |(index, link): (usize, &Link)| {
            let of = turn_of(index);
            link.is_signed
                && of.is_some_and(|of| trusted[of] && turns[of].key == link.statement.key)
        };
        self.links.iter().enumerate().map(is_proven).collect()
    }

    /// The seal that counts of each day that has one, and the place of its link: the last one. A day
    /// whose records were sealed again as another's has none.
    pub fn seals(&self) -> BTreeMap<&str, (usize, &Seal)> {
        let mut seals = BTreeMap::new();
        for (index, link) in self.links.iter().enumerate() {
            if let What::Seal(seal) = &link.statement.what {
                if let Some(was) = &seal.was {
                    seals.remove(was.as_str());
                }
                seals.insert(seal.day.as_str(), (index, seal));
            }
        }
        seals
    }

    /// What is left of each day that has gone, and the place of its link: the last one.
    pub fn tombstones(&self) -> BTreeMap<&str, (usize, &Tombstone)> {
        let mut found = BTreeMap::new();
        for (index, link) in self.links.iter().enumerate() {
            if let What::Tombstone(one) = &link.statement.what {
                found.insert(one.day.as_str(), (index, one));
            }
        }
        found
    }
}

/// Of each turn, whether its key is one of these, or one of these vouches for it.
fn trusted(turns: &[Turn], keys: &[PublicKey]) -> Vec<bool> {
    let mut trusted: Vec<bool> = turns.iter().map(|turn| keys.contains(&turn.key)).collect();
    for at in 1..turns.len() {
        trusted[at] |= trusted[at - 1] && turns[at].is_named;
    }
    for at in (1..turns.len()).rev() {
        trusted[at - 1] |= trusted[at] && turns[at].is_named;
    }
    trusted
}
