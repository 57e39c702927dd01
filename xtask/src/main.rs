//! Everything a developer runs beside `cargo build`:
//! `cargo xtask setup|test|fuzz|soak|lint|demo|bench|dist|vm`.
//!
//! Each command installs what it misses first (see `setup`) and says so beforehand.

mod bench;
mod command;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod setup;
mod soak;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Purpose;
use crate::test::Tier;

#[derive(Parser)]
#[command(about = "Set-up, tests, lint and demo of flowd", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build, test, lint and show flowd
    Setup {
        /// Only what this needs; everything when absent
        #[arg(long = "for", value_enum)]
        purpose: Option<Purpose>,
    },
    /// Run the tests; the last line is `N passed, N failed, N skipped`
    Test {
        /// Only this tier; all of them when absent
        #[arg(long, value_enum)]
        tier: Option<Tier>,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Try inputs that nobody thought of on the parsers, until one is wrong
    Fuzz {
        /// Only this one; every one when absent
        target: Option<String>,
        /// Only this file: an input that was kept because it is wrong
        #[arg(requires = "target")]
        input: Option<PathBuf>,
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Kill flowd at random instants under known traffic, thousands of times; needs root
    Soak {
        /// How often
        #[arg(long, default_value_t = 5_000)]
        kills: u32,
        /// Begin nothing new after this time
        #[arg(long)]
        minutes: Option<u64>,
        /// The instants are the same for the same seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run rustfmt, clippy and cargo-deny
    Lint,
    /// Show flowd at work on a WireGuard network of its own
    Demo {
        /// Use the release binaries as they are
        #[arg(long, hide = true)]
        no_build: bool,
        /// Build the network and the traffic only
        #[arg(long, hide = true)]
        without_flowd: bool,
    },
    /// Measure, and print a table
    Bench {
        /// What to measure
        #[arg(value_enum)]
        subject: bench::Subject,
        /// Measure the store with a hundred million records too
        #[arg(long)]
        large: bool,
    },
    /// Make a Debian package and a tarball in target/dist
    Dist {
        /// Pack the release binaries as they are
        #[arg(long, hide = true)]
        no_build: bool,
    },
    /// Boot the test kernels and run a test executable inside
    Vm {
        /// An executable built by `cargo test --no-run`
        program: PathBuf,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Play one host of the demo's network
    #[command(hide = true)]
    DemoRole {
        #[command(subcommand)]
        role: demo::Role,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup { purpose: Some(purpose) } => setup::ensure(&[purpose]),
        Task::Setup { purpose: None } => setup::all(),
        Task::Test { tier, filter } => return test::run(tier, filter.as_deref()),
        Task::Fuzz { target, input, seconds } => {
            fuzz::run_all(target.as_deref(), input.as_deref(), seconds)
        }
        Task::Soak { kills, minutes, seed } => soak::run_all(soak::Bounds { kills, minutes }, seed),
        Task::Lint => lint::run_all(),
        Task::Bench { subject, large } => bench::measure(subject, large),
        Task::Dist { no_build } => dist::run_all(no_build),
        Task::Demo { no_build, without_flowd } => {
            demo::run(demo::Options { no_build, without_flowd })
        }
        Task::Vm { program, filter } => test::vm_only(&program, filter.as_deref()),
        Task::DemoRole { role } => role.play(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Cli;

    #[test]
    fn the_commands_in_the_documents_exist() {
        let documents = [include_str!("../../README.md"), include_str!("../../CONTRIBUTING.md")];
        let mut found = 0;
        for line in documents.iter().flat_map(|text| text.split(['`', '\n'])) {
            let command = line.split('#').next().unwrap_or_default().trim();
            let Some(words) = command.strip_prefix("cargo xtask") else { continue };
            found += 1;
            let words = ["xtask"].into_iter().chain(words.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
        assert!(found >= 6, "the documents name commands");
    }
}
