//! The audit log, pure: what an entry is, how it is written for its hash, and how a chain of them is
//! checked. No clock, no file; `store/audit/` keeps it, `daemon/auditor.rs` writes it.
//!
//! - `event.rs` is something that happened, before it has a place in the log
//! - `entry.rs` gives it the place: a number, the hash before and its own, as docs/audit.md fixes them
//! - `fold.rs` makes one event of many that say the same
//! - `checkpoint.rs` is what is left of entries that were cut off
//! - `anchor.rs` is what the gateway's key has said of the log
//! - `chain.rs` finds what was edited, moved or removed
//! - `log.rs` is the way from whoever has something to tell to the thread that writes

mod anchor;
mod chain;
mod checkpoint;
mod entry;
mod event;
mod fold;
mod log;

pub use anchor::{Anchor, Signed};
pub use chain::{Chain, Head, Verdict};
pub use checkpoint::{Checkpoint, Signature};
pub use entry::Entry;
pub use event::{Actor, Caller, Event, Outcome, word};
pub use fold::{Fold, Folded};
pub use log::{Log, Message, NotAudited, Teller};

pub use crate::seal::Hash;
