//! `cargo xtask lint`: rustfmt, clippy, cargo-deny.

use std::time::Duration;

use anyhow::Result;

use crate::command::{cargo, command, run, succeeds, succeeds_within, workspace};
use crate::setup::{self, EbpfToolchain, Purpose};

/// How long fetching the advisories may take.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Runs all of them; stops at the first that complains.
pub(crate) fn run_all() -> Result<()> {
    setup::ensure(&[Purpose::Lint])?;
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--exclude", "flowd-ebpf", "--all-targets"];
    run(cargo(&clippy).args(["--", "-D", "warnings"]))?;
    datapath()?;
    run(&mut cargo(&["deny", "--all-features", "check", "bans", "licenses", "sources"]))?;
    advisories()
}

/// Clippy for the eBPF programs, which only their own toolchain compiles.
fn datapath() -> Result<()> {
    let Some(toolchain) = EbpfToolchain::installed() else {
        println!("lint: clippy of flowd-ebpf SKIPPED: no toolchain");
        return Ok(());
    };
    let with = |words: &[&str]| {
        let mut rustup = command(["rustup", "run", toolchain.name(), "cargo", "clippy"]);
        rustup.args(words).current_dir(workspace());
        rustup.env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTC");
        rustup.env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
        rustup
    };
    if !succeeds(&mut with(&["--version"])) {
        let name = toolchain.name();
        println!("lint: clippy of flowd-ebpf SKIPPED: toolchain `{name}` has no clippy");
        return Ok(());
    }
    let target = ["--target", "bpfel-unknown-none", "-Z", "build-std=core"];
    run(with(&["-p", "flowd-ebpf", "--bins"]).args(target).args(["--", "-D", "warnings"]))
}

/// The list of known holes lives on the network, which not every machine reaches.
fn advisories() -> Result<()> {
    if !succeeds_within(&mut cargo(&["deny", "fetch", "db"]), FETCH_LIMIT) {
        println!("lint: advisories SKIPPED: the advisory database cannot be reached");
        return Ok(());
    }
    run(&mut cargo(&["deny", "--all-features", "check", "--disable-fetch", "advisories"]))
}
