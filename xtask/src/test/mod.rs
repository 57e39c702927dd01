//! `cargo xtask test`: every tier, one result.
//!
//! - host: what `cargo test` runs anywhere.
//! - fuzz: the parsers on inputs that nobody thought of.
//! - root: flowd's release binaries on real WireGuard in network namespaces.
//! - vm: the same tests on Debian's kernels with the kernel's own WireGuard.
//! - install: the package on Debian 12 with systemd, as an operator uses it.

mod fuzz;
#[cfg(test)]
mod guarantees;
mod initramfs;
mod install;
mod machine;
mod outcome;
mod report;
mod vm;

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::outcome::Outcome;
use self::report::{Passing, Report};
use crate::command::{as_root, cargo, cargo_release, run as run_command, show, workspace};
use crate::dist;
use crate::setup::{self, Purpose};

/// A set of tests that needs the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Needs nothing
    Host,
    /// Needs cargo-fuzz
    Fuzz,
    /// Needs root and network namespaces
    Root,
    /// Needs QEMU
    Vm,
    /// Needs QEMU and debootstrap
    Install,
}

/// What the root and vm tiers run.
pub(crate) struct Built {
    flowd: PathBuf,
    flowctl: PathBuf,
    /// The integration tests' executable.
    pub(crate) tests: PathBuf,
}

/// A tier that is built: its tests.
type Job<'a> = Box<dyn FnOnce() -> Result<Outcome> + Send + 'a>;

/// Runs the tiers and prints the closing line.
pub(crate) fn run(wanted: Option<Tier>, filter: Option<&str>) -> ExitCode {
    let groups = match wanted {
        Some(tier) => vec![vec![tier]],
        None => vec![
            vec![Tier::Host],
            vec![Tier::Fuzz],
            vec![Tier::Root],
            vec![Tier::Vm, Tier::Install],
        ],
    };
    let mut total = Outcome::default();
    for group in groups {
        for (tier, outcome) in run_group(&group, filter) {
            let name = tier.name();
            let mut outcome = outcome.unwrap_or_else(|error| {
                println!("tier {name}: {error:#}");
                Outcome::broken(format!("{error:#}"))
            });
            // A filter may well match nothing in one of several tiers.
            let may_be_empty = filter.is_some() && wanted.is_none();
            if outcome.is_empty() && !may_be_empty {
                println!("tier {name}: ran no test");
                outcome += Outcome::broken("ran no test");
            }
            for failure in &mut outcome.failures {
                failure.name = format!("{name}: {}", failure.name);
            }
            total += outcome;
        }
    }
    if total.is_empty() {
        total = Outcome::broken("no test matches");
    }
    close(&total)
}

/// Builds some tiers, one after another, and runs each from then on.
fn run_group(tiers: &[Tier], filter: Option<&str>) -> Vec<(Tier, Result<Outcome>)> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        for &tier in tiers {
            println!("== tier {}", tier.name());
            running.push((tier, prepare(tier, filter).map(|job| scope.spawn(job))));
        }
        let mut ended = Vec::new();
        for (tier, job) in running {
            let outcome = |job: ScopedJoinHandle<'_, _>| job.join().expect("a tier does not panic");
            ended.push((tier, job.and_then(outcome)));
        }
        ended
    })
}

/// Prints what failed, then the closing line.
fn close(total: &Outcome) -> ExitCode {
    for failure in &total.failures {
        println!("failed: {failure}");
    }
    println!("{}", total.tally);
    if total.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs any test executable in the virtual machines: for work on the vm tier itself.
pub(crate) fn vm_only(program: &Path, filter: Option<&str>) -> Result<()> {
    setup::ensure(&[Purpose::Vm])?;
    let outcome = vm::run(&[("tests", program)], filter)?;
    if close(&outcome) != ExitCode::SUCCESS {
        bail!("tests failed");
    }
    Ok(())
}

/// Builds the release binaries and tells where they are: `(flowd, flowctl)`.
pub(crate) fn build_release() -> Result<(PathBuf, PathBuf)> {
    let messages = build(&["build", "--release", "-p", "flowd", "--bins"])?;
    let binary = |name| executable(&messages, name);
    Ok((binary("flowd")?, binary("flowctl")?))
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Fuzz => "fuzz",
            Self::Root => "root",
            Self::Vm => "vm",
            Self::Install => "install",
        }
    }
}

/// Installs what a tier misses, and builds what it runs.
fn prepare(tier: Tier, filter: Option<&str>) -> Result<Job<'_>> {
    Ok(match tier {
        Tier::Host => {
            setup::ensure(&[Purpose::Build])?;
            Box::new(move || host(filter))
        }
        Tier::Fuzz => {
            setup::ensure(&[Purpose::Fuzz])?;
            Box::new(move || fuzz::run(filter))
        }
        Tier::Root => {
            setup::ensure(&[Purpose::Test, Purpose::Dist])?;
            let failpoints = build_failpoints()?;
            let built = Built::new()?;
            Box::new(move || root(&built, &failpoints, filter))
        }
        Tier::Vm => {
            setup::ensure(&[Purpose::Vm])?;
            let Built { flowd, flowctl, tests } = Built::new()?;
            Box::new(move || {
                vm::run(&[("tests", &tests), ("flowd", &flowd), ("flowctl", &flowctl)], filter)
            })
        }
        Tier::Install => {
            setup::ensure(&[Purpose::Install, Purpose::Dist])?;
            match install::Load::build(filter)? {
                Some(load) => Box::new(move || install::run(&load)),
                None => Box::new(|| Ok(Outcome::default())),
            }
        }
    })
}

fn host(filter: Option<&str>) -> Result<Outcome> {
    let packages = ["-p", "flowd", "-p", "flowd-common", "-p", "xtask"];
    let mut tests = cargo(&["test", "--no-fail-fast"]);
    stream(tests.args(packages).args(filter))
}

fn root(built: &Built, failpoints: &Path, filter: Option<&str>) -> Result<Outcome> {
    let packages = dist::pack_twice(&built.flowd, &built.flowctl)?;
    let mut command = as_root(["env"])?;
    command
        .args(built.environment(failpoints))
        .arg(format!("FLOWD_TEST_PYTHON={}", setup::python()?.display()))
        .arg(format!("FLOWD_TEST_PROMTOOL={}", setup::promtool()?.display()))
        .arg(format!("FLOWD_DEB={}", packages.deb.display()))
        .arg(&built.tests)
        // More than there are processors: most of a test is waiting.
        .arg("--test-threads=4")
        .args(filter)
        // Where `cargo test` runs them.
        .current_dir(workspace().join("tests"));
    stream(&mut command)
}

impl Built {
    /// Where the tests find the programs, as assignments.
    pub(crate) fn environment(&self, failpoints: &Path) -> [String; 3] {
        let Self { flowd, flowctl, tests: _ } = self;
        let assign = |name: &str, path: &Path| format!("{name}={}", path.display());
        [
            assign("FLOWD_BIN", flowd),
            assign("FLOWCTL_BIN", flowctl),
            assign("FLOWD_FAILPOINTS_BIN", failpoints),
        ]
    }

    pub(crate) fn new() -> Result<Self> {
        let (flowd, flowctl) = build_release()?;
        let messages =
            build(&["test", "--release", "-p", "flowd-tests", "--test", "root", "--no-run"])?;
        let tests = executable(&messages, "root")?;
        Ok(Self { flowd, flowctl, tests })
    }
}

/// flowd with the feature `failpoints`, put aside, and flowctl beside it: the usual ones take their
/// places again. Not optimized: another release build takes minutes.
pub(crate) fn build_failpoints() -> Result<PathBuf> {
    let messages = build(&["build", "-p", "flowd", "--bins", "--features", "failpoints"])?;
    let aside = |name: &str| -> Result<PathBuf> {
        let built = executable(&messages, name)?;
        let aside = built.with_file_name(format!("{name}-failpoints"));
        fs::copy(&built, &aside).with_context(|| format!("cannot write {}", aside.display()))?;
        Ok(aside)
    };
    aside("flowctl")?;
    aside("flowd")
}

/// Runs a command of cargo that builds, and returns its messages about artifacts.
fn build(words: &[&str]) -> Result<Vec<serde_json::Value>> {
    let mut cargo = if words.contains(&"--release") { cargo_release(words) } else { cargo(words) };
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("cannot run {}", show(&cargo)))?;
    if !output.status.success() {
        bail!("{} failed", show(&cargo));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn executable(messages: &[serde_json::Value], target: &str) -> Result<PathBuf> {
    messages
        .iter()
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str())
        .map(PathBuf::from)
        .with_context(|| format!("the build made no executable `{target}`"))
}

/// Runs tests with their output on the terminal, and counts.
fn stream(command: &mut Command) -> Result<Outcome> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", show(command)))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut report = Report::new(passing());
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        if let Some(line) = report.line(&String::from_utf8_lossy(&line)) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    let mut outcome = report.outcome();
    if !status.success() && outcome.tally.failed == 0 {
        let complaint = format!("{} failed: {status}", show(command));
        println!("{complaint}");
        outcome += Outcome::broken(complaint);
    }
    Ok(outcome)
}

/// What is shown of tests that pass.
fn passing() -> Passing {
    if io::stdout().is_terminal() { Passing::Shown } else { Passing::Hidden }
}

/// Runs a command whose output matters only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    run_command(command.stdin(Stdio::null()).stdout(Stdio::null()))
}
