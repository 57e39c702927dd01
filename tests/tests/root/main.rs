//! flowd's built binaries on real WireGuard tunnels. Needs root.

mod harness;

mod books;

mod api;
mod audit;
mod change;
mod confined;
mod counting;
mod coverage;
mod crash;
mod datapath;
mod enforcement;
mod examples;
mod export;
mod gaps;
mod identity;
mod live;
mod metrics;
mod mishaps;
mod monitoring;
mod operations;
mod order;
mod package;
mod policy;
mod pressure;
mod queries;
mod reboot;
mod records;
mod refusals;
mod restart;
mod sealed;
mod sidecar;
mod sql;
mod store;
mod strays;
mod verdicts;
mod watchdog;
mod ways_past;
