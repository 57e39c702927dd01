//! The pure core: what a flow and a record are, and how counters become records.
//!
//! No clock, no file, no global: everything comes in through parameters.

mod filter;
mod flow;
mod flow_id;
mod gap;
mod identity;
mod protocol;
mod record;
mod routes;
#[cfg(test)]
pub(crate) mod sample;
mod session;
mod summary;
mod top;

pub use filter::{Decider, Filter, State};
pub use flow::Flow;
pub use flow_id::FlowId;
pub use gap::{Bound, Gap, GapSum, Stage};
pub use identity::Identity;
pub use protocol::{protocol_name, protocol_number};
pub use record::{Counters, EndReason, Entry, Icmp, Initiator, Record, TcpFlags, Tuple, Verdict};
pub use routes::{Prefixes, Routes};
pub use session::Timeouts;
pub use summary::{Summary, Tally};
pub use top::{By, Key, Ranking, Sort};
