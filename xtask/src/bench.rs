//! `cargo xtask bench`: figures of this machine. Nothing is asserted.

use anyhow::Result;
use clap::ValueEnum;

use crate::command::{as_root, cargo_release, command, release_flags, run, workspace};
use crate::setup::{self, Purpose};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Nanoseconds a packet in the kernel
    Datapath,
    /// Policies of 10 to 100,000 rules: time to compile, kernel memory, nanoseconds a packet
    Policy,
    /// The store: records a second, bytes a record, questions at 1 and 10 million records
    Store,
    /// Bytes and nanoseconds a record of column chunks, and questions over ten million in memory
    Chunk,
}

/// Builds, then measures: what is in the kernel as root.
///
/// `large` adds a hundred million records to what the store is measured with.
pub(crate) fn measure(subject: Subject, large: bool) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    let name = match subject {
        Subject::Datapath => "datapath",
        Subject::Policy => "policy",
        Subject::Store => "store",
        Subject::Chunk => "chunk",
    };
    let target = ["bench", "--package", "flowd-tests", "--bench", name];
    run(cargo_release(&target).arg("--no-run"))?;
    let mut words = vec!["env".to_owned()];
    words.extend(release_flags().map(|(name, value)| format!("{name}={value}")));
    words.push(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    words.extend(target.map(str::to_owned));
    let json = workspace().join(format!("target/bench-{name}.json"));
    let mut bench = match subject {
        Subject::Datapath | Subject::Policy => as_root(words)?,
        Subject::Store | Subject::Chunk => command(words),
    };
    bench.current_dir(workspace()).env("FLOWD_BENCH_JSON", &json);
    if large {
        bench.env("FLOWD_BENCH_LARGE", "1");
    }
    run(&mut bench)?;
    println!("\nas JSON: {}", json.display());
    Ok(())
}
