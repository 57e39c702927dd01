//! flowd: which WireGuard peer talked to what, when, how much, and was it allowed.
//!
//! The crate holds both programs, the daemon `flowd` and the client `flowctl`. `ARCHITECTURE.md`
//! has the map; the order below is the order to read in.

/// A place where a test can kill the daemon; nothing in other builds.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        crate::failpoint::reached($name);
    };
}

pub mod flows;

pub mod policy;

pub mod dataplane;
pub mod identity;
pub mod wireguard;

pub mod audit;
pub mod chunk;
pub mod seal;
pub mod store;

pub mod api;
pub mod live;
pub mod wire;

pub mod export;

pub mod config;
pub mod daemon;
pub mod heap;

pub mod ctl;

#[cfg(feature = "failpoints")]
mod failpoint;
mod nearest;
mod size;
mod when;
