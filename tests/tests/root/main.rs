//! flowd's built binaries on real WireGuard tunnels. Needs root.

mod harness;

mod books;

mod change;
mod counting;
mod datapath;
mod enforcement;
mod identity;
mod policy;
mod pressure;
mod records;
mod refusals;
mod verdicts;
mod ways_past;
