//! What a machine must have, found out and installed.
//!
//! A need is looked for by using it, never by a stamp file. What is missing is announced, one line
//! a thing, before anything is changed; when nothing is missing, nothing is said.

mod ebpf_toolchain;
mod kernels;
mod packages;
mod promtool;
mod python;
mod toolchain;

pub(crate) use self::ebpf_toolchain::EbpfToolchain;
pub(crate) use self::kernels::{Kernel, SERIES};
pub(crate) use self::promtool::program as promtool;
pub(crate) use self::python::interpreter as python;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile flowd with its eBPF programs
    Build,
    /// Tests in network namespaces
    Test,
    /// Fuzz targets
    Fuzz,
    /// Tests in virtual machines
    Vm,
    /// The demo
    Demo,
    /// rustfmt, clippy, cargo-deny
    Lint,
    /// The Debian package
    Dist,
}

/// One thing that is missing.
struct Missing {
    what: String,
    why: &'static str,
    /// What will be run, for people.
    command: String,
    install: Box<dyn FnOnce() -> Result<()>>,
}

/// Installs everything that any purpose needs.
pub(crate) fn all() -> Result<()> {
    if install(Purpose::value_variants())? == Outcome::Complete {
        println!("everything is installed");
    }
    Ok(())
}

/// Installs what these purposes need and is not there.
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    install(purposes).map(drop)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Complete,
    Installed,
}

fn install(purposes: &[Purpose]) -> Result<Outcome> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(Outcome::Complete);
    }
    for Missing { what, why, command, install: _ } in &missing {
        println!("installing {what}: {why} ({command})");
    }
    for Missing { what, why: _, command: _, install } in missing {
        install().with_context(|| format!("cannot install {what}"))?;
    }
    Ok(Outcome::Installed)
}

/// Lists what is missing, in the order in which it must be installed.
fn missing(purposes: &[Purpose]) -> Vec<Missing> {
    let wants = |purpose| purposes.contains(&purpose);
    let mut missing = Vec::new();
    missing.extend(packages::missing(purposes));
    // Every purpose compiles flowd.
    missing.extend(toolchain::compiler());
    missing.extend(toolchain::linker());
    if wants(Purpose::Fuzz) {
        missing.extend(toolchain::fuzz());
    }
    if wants(Purpose::Test) {
        missing.extend(python::missing());
        missing.extend(promtool::missing());
    }
    if wants(Purpose::Vm) {
        missing.extend(SERIES.iter().filter_map(|series| kernels::missing(series)));
    }
    if wants(Purpose::Lint) {
        missing.extend(toolchain::deny());
    }
    if wants(Purpose::Dist) {
        missing.extend(toolchain::deb());
    }
    missing
}

/// A place of ours below the user's cache directory, which need not exist.
fn cache(name: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) if !cache.is_empty() => PathBuf::from(cache),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("flowd").join(name))
}
