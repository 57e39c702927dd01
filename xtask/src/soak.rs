//! `cargo xtask soak`: the tests that kill flowd at random instants, again and again, each time with
//! another seed.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::{as_root, run, workspace};
use crate::setup::{self, Purpose};
use crate::test::{Built, build_failpoints};

/// Kills of one test in one round: its flows have to be listed at the end.
const KILLS: u32 = 300;
/// In the tests that take `FLOWD_TEST_KILLS`.
const TESTS: u32 = 3;

/// What ends it; whatever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Kills in all.
    pub(crate) kills: u32,
    /// The time in which rounds begin.
    pub(crate) minutes: Option<u64>,
}

/// Runs rounds with the seeds `seed`, `seed + 1`, …, as root; stops at the first that fails.
pub(crate) fn run_all(bounds: Bounds, seed: u64) -> Result<()> {
    setup::ensure(&[Purpose::Test])?;
    let failpoints = build_failpoints()?;
    let built = Built::new()?;
    let begun = Instant::now();
    let limit = bounds.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let (mut kills, mut seed) = (0, seed);
    while kills < bounds.kills && limit.is_none_or(|limit| begun.elapsed() < limit) {
        let each = KILLS.min((bounds.kills - kills).div_ceil(TESTS));
        println!("soak: seed {seed}, {} kills", each * TESTS);
        let mut command = as_root(["env"])?;
        command
            .args(built.environment(&failpoints))
            .args([format!("FLOWD_TEST_KILLS={each}"), format!("FLOWD_TEST_SEED={seed}")])
            .arg(&built.tests)
            .args(["--test-threads=2", "crash::at_random_instants"])
            .current_dir(workspace().join("tests"));
        run(&mut command)?;
        kills += each * TESTS;
        seed += 1;
    }
    println!("soak: {kills} kills in {} s", begun.elapsed().as_secs());
    Ok(())
}
