//! What the drain thread says of itself to `/metrics`.

use std::{sync::Arc, time::Duration};

use crate::{
    flows::{Counters, Identity, Verdict},
    wire,
};

/// Everything at one instant.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// As in `/v1/status`.
    pub status: wire::Status,
    /// How long drains took.
    pub drains: Durations,
    /// Whether the last drain has left something for the next one.
    pub is_behind: bool,
    /// Writes of the store that failed since the start.
    pub write_failures: u64,
    /// Peers as they are configured now.
    pub peers: Arc<Vec<wire::Peer>>,
    /// What peers did since the start, each in a series of its own or together with others.
    pub traffic: Vec<Traffic>,
}

/// Whose packets they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One peer's.
    Peer(Arc<Identity>),
    /// Of peers beyond those that have a series of their own.
    Others,
    /// Of an address that no peer has.
    Nobodys,
}

/// Packets and bytes since the daemon's start, recorded or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Whose.
    pub whose: Whose,
    /// By verdict.
    pub sums: ByVerdict,
}

/// Counters of what is allowed, and of what is denied, whether or not it was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByVerdict {
    /// Allowed.
    pub allow: Counters,
    /// Denied.
    pub deny: Counters,
}

impl ByVerdict {
    /// The counters of one verdict.
    pub fn of(&mut self, verdict: Verdict) -> &mut Counters {
        match verdict {
            Verdict::Allow => &mut self.allow,
            Verdict::Deny => &mut self.deny,
        }
    }
}

/// A histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many were within each of [`Self::BOUNDS`] and beyond the bound before, then how many
    /// were beyond all.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Durations {
    /// From a drain of an idle gateway to one of a million flows on a slow disk.
    pub const BOUNDS: [Duration; 10] = [
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(500),
        Duration::from_millis(2_500),
        Duration::from_secs(10),
    ];

    /// Adds one.
    pub fn observe(&mut self, took: Duration) {
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < took)] += 1;
        self.sum += took;
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Durations};

    #[test]
    fn a_duration_is_within_its_bound() {
        let cases = [(0, 0), (1_000, 0), (1_001, 1), (10_000_000, 9), (10_000_001, 10)];
        for (micros, place) in cases {
            let mut durations = Durations::default();
            durations.observe(Duration::from_micros(micros));
            let found = durations.counts.iter().position(|count| *count == 1);
            assert_eq!(found, Some(place), "{micros}");
            assert_eq!(durations.sum, Duration::from_micros(micros));
        }
    }
}
