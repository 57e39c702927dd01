//! The policy: which peer may talk to what. Pure: no clock, no file, no kernel.
//!
//! A text is parsed and checked whole, interpreted rule by rule ([`Policy::decide`], the
//! specification), and compiled for the kernel ([`compile`]).

mod rule;
mod selector;
mod service;
mod world;

mod compile;
mod host;

pub use compile::{Compiled, Limits, TooLarge, compile};
pub use host::HostTables;
pub use rule::{Mode, Policy, Rule};
pub use selector::{Endpoint, Group, Selector};
pub use service::{Service, Services};
pub use world::World;
