//! The pure core: what a flow and a record are, and how counters become records.
//!
//! No clock, no file, no global: everything comes in through parameters.

mod coverage;
mod day_total;
mod filter;
mod flow;
mod flow_id;
mod flow_sort;
mod gap;
mod grouping;
mod identity;
mod opening;
mod peer_session;
mod protocol;
mod rates;
mod record;
mod routes;
#[cfg(test)]
pub(crate) mod sample;
mod series;
mod session;
mod summary;
mod top;

pub use coverage::{Balance, Coverage, Finding, Interval, Missing, Observation, Outer};
pub use day_total::DayTotal;
pub use filter::{Decider, Filter, State};
pub use flow::Flow;
pub use flow_id::FlowId;
pub use flow_sort::FlowSort;
pub use gap::{Bound, Gap, GapSum, Stage};
pub use grouping::{Group, Grouping, NotAGrouping};
pub use identity::Identity;
pub use opening::Opening;
pub use peer_session::{Look, Moment, PeerEvent, PeerEventKind, PeerSession, Session, sessions};
pub use protocol::{protocol_keyword, protocol_name, protocol_names, protocol_number};
pub use rates::{Board, PeerRate, RateSort};
pub use record::{Counters, EndReason, Entry, Icmp, Initiator, Record, TcpFlags, Tuple, Verdict};
pub use routes::{Prefixes, Routes};
pub use series::{Line, NotAStep, Series, Step};
pub use session::Timeouts;
pub use summary::{Summary, Tally};
pub use top::{By, Key, Order, Ranking, Sort};
