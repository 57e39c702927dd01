//! The policy: which peer may talk to what. Pure: no clock, no file, no kernel.
//!
//! A text is parsed and checked whole, interpreted rule by rule ([`Policy::decide`], the
//! specification), compiled for the kernel ([`compile`]), and replayed over records ([`Replayer`]).

mod rule;
mod selector;
mod service;
mod world;

mod parse;

mod file;

mod names;

mod entry;
mod groups;
mod ports;

mod cover;
mod shadow;
mod unused;

mod problem;

mod compile;
mod host;

mod replay;

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
mod tests;

pub use compile::{Compiled, Limits, TooLarge, compile};
pub use host::HostTables;
pub use names::Known;
pub use parse::{Checked, parse};
pub use problem::Problem;
pub use replay::{Replayed, Replayer, Turn};
pub use rule::{Mode, Policy, Rule};
pub use selector::{Endpoint, Group, Selector};
pub use service::{Service, Services};
pub use world::World;
