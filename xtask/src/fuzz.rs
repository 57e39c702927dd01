//! `cargo xtask fuzz`: inputs that nobody thought of, for the parsers. The tier `fuzz` runs the same
//! targets.
//!
//! - a target is a file in `fuzz/fuzz_targets/`; its seeds are in `fuzz/corpus/`, words that it
//!   often needs in `fuzz/dictionaries/`
//! - what makes a target panic is kept in `fuzz/artifacts/`
//! - the stable compiler is enough: there is no sanitizer, and what is fuzzed has no unsafe code

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run, workspace};
use crate::setup::{self, Purpose};

/// How long one input may take.
const INPUT_SECONDS: u64 = 20;

/// What ends a run before anything is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The inputs that are tried.
    pub(crate) inputs: Option<u64>,
    /// The time that it takes.
    pub(crate) seconds: u64,
    /// With the same seed, the same inputs are tried.
    pub(crate) seed: Option<u32>,
}

/// Runs one target or all of them on the terminal; with `input`, on this file only.
pub(crate) fn run_all(target: Option<&str>, input: Option<&Path>, seconds: u64) -> Result<()> {
    setup::ensure(&[Purpose::Fuzz])?;
    let mut chosen = targets()?;
    if let Some(wanted) = target {
        if !chosen.iter().any(|known| known == wanted) {
            bail!("there is no target `{wanted}`; there are {}", chosen.join(", "));
        }
        chosen = vec![wanted.to_owned()];
    }
    build()?;
    for target in &chosen {
        let mut command = match input {
            Some(input) => on_input(target, input)?,
            None => {
                // What was found stays, and the next run goes on from there.
                let found = workspace().join("target/fuzz").join(target);
                let bounds = Bounds { inputs: None, seconds, seed: None };
                on_corpus(target, &found, bounds)?
            }
        };
        run(&mut command)?;
    }
    Ok(())
}

/// Every target, by name.
pub(crate) fn targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().context("a target has a name")?;
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// Compiles every target.
pub(crate) fn build() -> Result<()> {
    run(&mut cargo_fuzz("build"))
}

/// Runs a target on its seeds and what it makes of them, which goes to the directory `found`.
pub(crate) fn on_corpus(target: &str, found: &Path, bounds: Bounds) -> Result<Command> {
    let Bounds { inputs, seconds, seed } = bounds;
    fs::create_dir_all(found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut command = cargo_fuzz("run");
    command.arg(target).arg(found).arg(seeds(target));
    command.args(["--", &format!("-max_total_time={seconds}"), &limit()]);
    command.args(inputs.map(|inputs| format!("-runs={inputs}")));
    command.args(seed.map(|seed| format!("-seed={seed}")));
    let words = workspace().join("fuzz/dictionaries").join(format!("{target}.dict"));
    command.args(words.exists().then(|| format!("-dict={}", words.display())));
    Ok(command)
}

/// What a person types to run a target on an input again.
pub(crate) fn reproduction(target: &str, input: &str) -> String {
    format!("cargo xtask fuzz {target} {input}")
}

/// The directory of a target's seeds.
fn seeds(target: &str) -> PathBuf {
    workspace().join("fuzz/corpus").join(target)
}

fn on_input(target: &str, input: &Path) -> Result<Command> {
    let input = fs::canonicalize(input).with_context(|| format!("no {}", input.display()))?;
    let mut command = cargo_fuzz("run");
    command.arg(target).arg(input).args(["--", &limit()]);
    Ok(command)
}

fn limit() -> String {
    format!("-timeout={INPUT_SECONDS}")
}

/// A command of cargo-fuzz.
///
/// Optimised a little: without, compiling takes half of the time, and the targets some twenty times.
/// Overflow and debug assertions are checked.
fn cargo_fuzz(verb: &str) -> Command {
    let mut command = cargo(&["fuzz", verb, "--dev", "--sanitizer", "none"]);
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command.env("CARGO_INCREMENTAL", "0");
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{seeds, targets};
    use crate::command::workspace;

    #[test]
    fn every_target_has_seeds_and_is_built() {
        let manifest = fs::read_to_string(workspace().join("fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(targets.len() >= 5, "{targets:?}");
        for target in targets {
            let seeds = fs::read_dir(seeds(&target)).unwrap().count();
            assert!(seeds >= 5, "{target} has {seeds} seeds");
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }
}
