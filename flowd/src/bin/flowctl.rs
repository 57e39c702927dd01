//! The client.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    flowd::ctl::complete();
    flowd::ctl::run(&flowd::ctl::Cli::parse())
}
