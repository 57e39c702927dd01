//! What the gateway's key has said of the log: that it had this entry at that time.
//!
//! Whoever can write the file can take the newest entries away, or make all of it anew; not what was
//! signed. What stands behind the last anchor nobody has signed yet.

use super::{Checkpoint, Hash, Head};
use crate::seal::{Chain, PublicKey, Statement, What};

/// The log had this entry, and it was the newest one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The entry.
    pub head: Head,
    /// When that was said, in Unix milliseconds.
    pub at_ms: i64,
}

impl Anchor {
    /// What a statement says of the log; `None`: nothing.
    pub fn of(statement: &Statement) -> Option<Self> {
        let What::Audit { sequence, hash } = statement.what else { return None };
        Some(Self { head: Head { seq: sequence, hash }, at_ms: statement.at_ms })
    }

    /// What is wrong with a log whose entry of this number has this hash, or that has none and ends
    /// with number `last`.
    pub fn wrong(&self, found: Option<Hash>, last: u64) -> Option<String> {
        let Self { head: Head { seq, hash }, at_ms } = self;
        let at = jiff::Timestamp::from_millisecond(*at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        match found {
            Some(found) if found == *hash => None,
            Some(_) => {
                Some(format!("made anew: entry {seq} has another hash than was signed {at:.3}"))
            }
            None if *seq > last => {
                Some(format!("truncated: entry {seq}, which was signed {at:.3}, is not there"))
            }
            None => Some(format!("entry {seq}, which was signed {at:.3}, is not there")),
        }
    }
}

/// What keys that somebody kept prove of the log.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// These keys, and those that they vouch for.
    pub keys: Vec<PublicKey>,
    /// In the order in which they were said.
    pub anchors: Vec<Anchor>,
    /// What is wrong with the chain that has them, one line each.
    pub problems: Vec<String>,
    /// Why it proves nothing.
    pub nothing: Option<&'static str>,
}

impl Signed {
    /// What a chain has under these keys. Without keys nothing is proven, and nothing wrong.
    pub fn of(chain: &Chain, keys: &[PublicKey]) -> Self {
        let all: Vec<_> = chain.links.iter().map(|link| Anchor::of(&link.statement)).collect();
        let nothing = if keys.is_empty() {
            Some("no key was given")
        } else if chain.links.is_empty() {
            Some("there is no `seals.chain` beside it")
        } else if all.iter().all(Option::is_none) {
            Some("the `seals.chain` beside it says nothing of it")
        } else {
            None
        };
        let mut signed = Self { keys: chain.trusted(keys), nothing, ..Self::default() };
        if keys.is_empty() {
            return signed;
        }
        if let Some(nothing) = nothing {
            signed.problems.push(format!("{nothing}: nothing of it is proven"));
        }
        if !chain.breaks.is_empty() {
            let broken = "the `seals.chain` beside it is not as it was written: `flowctl verify` \
                          tells more";
            signed.problems.push(broken.to_owned());
        }
        let mut strange = Vec::new();
        for (index, (anchor, is_proven)) in all.iter().zip(chain.proven(keys)).enumerate() {
            match anchor {
                Some(anchor) if is_proven => signed.anchors.push(*anchor),
                Some(_) => strange.push(chain.links[index].statement.number),
                None => {}
            }
        }
        if let Some(number) = strange.first() {
            signed.problems.push(format!(
                "of what the `seals.chain` beside it says of the log, no known key has signed {} \
                 statements, of which the first is statement {number}",
                strange.len()
            ));
        }
        signed
    }

    /// What speaks of the entries that a cut has left, and of the last one that it took: what was said
    /// before that one was signed went with it. `None`: nobody has said that it was there.
    pub fn since(&self, cut: &Checkpoint) -> Option<&[Anchor]> {
        let its = Head { seq: cut.seq, hash: cut.hash };
        let from = self.anchors.iter().rposition(|anchor| anchor.head == its)?;
        Some(&self.anchors[from..])
    }

    /// What is wrong with a cut of which nobody has said that its entry was there; `None`: nothing was
    /// said at all.
    pub fn without(&self, cut: &Checkpoint) -> Option<String> {
        (!self.anchors.is_empty()).then(|| {
            let seq = cut.seq;
            format!(
                "entries up to {seq} were cut off, of which the `seals.chain` beside it says \
                 nothing: is it an older copy?"
            )
        })
    }
}
