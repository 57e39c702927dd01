//! The datapath's clocks on the wall clock's time line.
//!
//! A flow is created with `CLOCK_MONOTONIC` and stamped with `jiffies`, whose rate the kernel does
//! not tell: it is measured between two readings, and is one of a few.

use flowd_common::{clock::Clocks, memory::Anchor};

/// The rates that Linux can be built with.
const RATES_HZ: [u64; 4] = [100, 250, 300, 1000];
/// How far apart two readings must be to tell the rates from each other, on a machine whose ticks
/// come late.
const APART_NS: u64 = 90_000_000;

/// Where the kernel's clocks stand on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLine {
    now: Clocks,
    wall_ms: i64,
    rate_hz: u64,
}

impl TimeLine {
    /// Relates `now`, read at `wall_ms` (Unix milliseconds), to the wall clock. `None` when it is
    /// too soon after `start` to know the rate.
    pub fn new(start: Clocks, now: Clocks, wall_ms: i64) -> Option<Self> {
        let elapsed_ns = now.monotonic_ns.checked_sub(start.monotonic_ns)?;
        if elapsed_ns < APART_NS {
            return None;
        }
        let ticks = now.jiffies.saturating_sub(start.jiffies);
        let measured = u128::from(ticks) * 1_000_000_000 / u128::from(elapsed_ns);
        let rate_hz =
            RATES_HZ.into_iter().min_by_key(|rate| u128::from(*rate).abs_diff(measured))?;
        Some(Self { now, wall_ms, rate_hz })
    }

    /// Unix milliseconds now.
    pub fn wall_ms(&self) -> i64 {
        self.wall_ms
    }

    /// Both clocks now.
    pub fn clocks(&self) -> Clocks {
        self.now
    }

    /// Where the wall clock stands from now on.
    pub fn anchor(&self) -> Anchor {
        let since_zero_ms = self.now.monotonic_ns / 1_000_000;
        Anchor {
            from_ns: self.now.monotonic_ns,
            zero_ms: self.wall_ms.saturating_sub_unsigned(since_zero_ms),
        }
    }

    /// Unix milliseconds of a `jiffies` reading.
    pub fn jiffies_ms(&self, jiffies: u64) -> i64 {
        let age = self.now.jiffies as i64 - jiffies as i64;
        self.wall_ms - age * 1000 / self.rate_hz as i64
    }
}

#[cfg(test)]
mod tests {
    use super::{Anchor, Clocks, TimeLine};

    const START: Clocks = Clocks { monotonic_ns: 1_000_000_000, jiffies: 4_294_900_000 };

    #[test]
    fn the_rate_is_the_nearest_that_linux_has() {
        for (elapsed_ms, ticks, rate_hz) in
            [(100, 10, 100), (100, 25, 250), (200, 48, 250), (1000, 298, 300), (5000, 4999, 1000)]
        {
            let now = Clocks {
                monotonic_ns: START.monotonic_ns + elapsed_ms * 1_000_000,
                jiffies: START.jiffies + ticks,
            };
            assert_eq!(TimeLine::new(START, now, 0).unwrap().rate_hz, rate_hz);
        }
    }

    #[test]
    fn too_soon_is_too_soon() {
        let now = Clocks { monotonic_ns: START.monotonic_ns + 1_000_000, ..START };
        assert_eq!(TimeLine::new(START, now, 0), None);
    }

    #[test]
    fn both_clocks_meet_on_the_wall() {
        let now = Clocks { monotonic_ns: 3_000_000_000, jiffies: START.jiffies + 500 };
        let line = TimeLine::new(START, now, 10_000).unwrap();
        assert_eq!(line.anchor(), Anchor { from_ns: 3_000_000_000, zero_ms: 7_000 });
        assert_eq!(line.jiffies_ms(START.jiffies + 250), 9_000);
    }
}
