//! The client.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    flowd::ctl::run(&flowd::ctl::Cli::parse())
}
