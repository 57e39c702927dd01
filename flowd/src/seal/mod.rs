//! Sealed history, pure: what a day has as hashes, what is said of it under the gateway's key, and
//! the chain of what was said. No file, no clock. `docs/sealed.md` fixes every byte of it.
//!
//! - [`Content`] takes records in whatever form they are stored, and gives hashes of what they say
//! - a [`Statement`] is a line: a key, a seal of a day, a tombstone of one that has gone; it has the
//!   hash of the line before, and a signature
//! - a [`Chain`] is all lines as they were read, and which of them a key that somebody kept proves

mod chain;
mod content;
mod encode;
mod hash;
mod key;
mod proof;
mod statement;

pub use chain::{Break, Chain, Link};
pub use content::{Content, Contents, RANGE_IDS, range_ids};
pub use encode::{Named, Section, Value, identity};
pub use hash::Hash;
pub use key::{NotAKey, PrivateKey, PublicKey};
pub use proof::{DayProof, DayState, Fault, FaultKind, Proof};
pub use statement::{FORMAT, Seal, SectionSeal, Statement, Tombstone, What};

#[cfg(test)]
pub(crate) mod tests;
