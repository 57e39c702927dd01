//! `cargo xtask bench`: figures of this machine. Nothing is asserted.

use anyhow::Result;
use clap::ValueEnum;

use crate::command::{as_root, cargo, run, workspace};
use crate::setup::{self, Purpose};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Nanoseconds a packet in the kernel
    Datapath,
    /// Policies of 10 to 100,000 rules: time to compile, kernel memory, nanoseconds a packet
    Policy,
    /// Bytes and nanoseconds a record of column chunks, and questions over ten million in memory
    Chunk,
}

/// Builds, then measures as root.
pub(crate) fn measure(subject: Subject) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    let name = match subject {
        Subject::Datapath => "datapath",
        Subject::Policy => "policy",
        Subject::Chunk => "chunk",
    };
    let target = ["bench", "--package", "flowd-tests", "--bench", name];
    run(cargo(&target).arg("--no-run"))?;
    let mut words = vec![std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())];
    words.extend(target.map(str::to_owned));
    let json = workspace().join(format!("target/bench-{name}.json"));
    run(as_root(words)?.current_dir(workspace()).env("FLOWD_BENCH_JSON", &json))?;
    println!("\nas JSON: {}", json.display());
    Ok(())
}
