//! The compiler and the linker of the eBPF programs, cargo-fuzz, cargo-deny and cargo-deb.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::packages;
use super::{EbpfToolchain, Missing};
use crate::command::{command, read, run, succeeds, succeeds_within};

/// The version that the programs are known to link with.
const BPF_LINKER: &str = "0.13.0";

/// The version that the flags of `cargo xtask fuzz` are for.
const CARGO_FUZZ: &str = "0.13.1";

/// The version that `[package.metadata.deb]` is written for.
const CARGO_DEB: &str = "3.8.0";

/// The LLVM of Debian's compiler.
const DEBIAN_LLVM: u32 = 22;

/// How long rustup may try to fetch nightly: some networks drop instead of refusing.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Nightly with `rust-src` where rustup can fetch it, else Debian's compiler.
pub(super) fn compiler() -> Option<Missing> {
    if EbpfToolchain::installed().is_some() {
        return None;
    }
    Some(Missing {
        what: "a Rust compiler with core's sources".to_owned(),
        why: "compiles the eBPF programs",
        command: format!(
            "rustup component add rust-src --toolchain nightly; where that fails {}",
            packages::apt_command(&debian_packages().each_ref().map(String::as_str))
        ),
        install: Box::new(|| if nightly() { Ok(()) } else { debian() }),
    })
}

/// bpf-linker with the LLVM of the compiler.
pub(super) fn linker() -> Option<Missing> {
    let version = command(["bpf-linker", "--version"]).output().ok();
    let installed = version.is_some_and(|output| {
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == BPF_LINKER)
    });
    (!installed).then(|| Missing {
        what: format!("bpf-linker {BPF_LINKER}"),
        why: "links the eBPF programs; a minute or two",
        command: format!("cargo install --debug bpf-linker --version {BPF_LINKER} --locked"),
        install: Box::new(install_linker),
    })
}

/// cargo-fuzz.
pub(super) fn fuzz() -> Option<Missing> {
    let installed = succeeds(&mut command(["cargo-fuzz", "--version"]));
    (!installed).then(|| Missing {
        what: format!("cargo-fuzz {CARGO_FUZZ}"),
        why: "builds and runs the fuzz targets; a minute or two",
        command: format!("cargo install --debug cargo-fuzz --version {CARGO_FUZZ} --locked"),
        install: Box::new(|| run(install("cargo-fuzz").args(["--version", CARGO_FUZZ]))),
    })
}

/// cargo-deny.
pub(super) fn deny() -> Option<Missing> {
    let installed = succeeds(&mut command(["cargo-deny", "--version"]));
    (!installed).then(|| Missing {
        what: "cargo-deny".to_owned(),
        why: "checks licences and sources of dependencies; some minutes",
        command: "cargo install --debug cargo-deny --locked".to_owned(),
        install: Box::new(|| run(&mut install("cargo-deny"))),
    })
}

/// cargo-deb, without its own copy of liblzma: xz does that.
pub(super) fn deb() -> Option<Missing> {
    let version = command(["cargo-deb", "--version"]).output().ok();
    let installed = version.is_some_and(|output| {
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == CARGO_DEB)
    });
    (!installed).then(|| Missing {
        what: format!("cargo-deb {CARGO_DEB}"),
        why: "makes the Debian package; a minute or two",
        command: format!("cargo install --debug cargo-deb --version {CARGO_DEB} --locked"),
        install: Box::new(|| {
            run(install("cargo-deb").args(["--version", CARGO_DEB, "--no-default-features"]))
        }),
    })
}

/// Whether nightly with `rust-src` is there now, and an LLVM that links what it compiles.
fn nightly() -> bool {
    let rustup = |words: &[&str]| {
        let mut rustup = Command::new("rustup");
        rustup.args(words);
        succeeds_within(&mut rustup, RUSTUP_LIMIT)
    };
    let fetched = rustup(&["component", "add", "rust-src", "--toolchain", "nightly"])
        || rustup(&["toolchain", "install", "nightly", "--component", "rust-src"]);
    if !fetched {
        println!("rustup cannot fetch nightly with rust-src: taking Debian's compiler");
        return false;
    }
    let linkable = llvm_version(EbpfToolchain::Nightly)
        .is_ok_and(|llvm| has_llvm(llvm) || packages::obtainable(&format!("llvm-{llvm}-dev")));
    if !linkable {
        println!("there is no LLVM package for nightly's LLVM: taking Debian's compiler");
    }
    linkable
}

fn debian_packages() -> [String; 5] {
    let llvm = format!("llvm-{DEBIAN_LLVM}-dev");
    let [compiler, cargo, sources, clippy] =
        ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"].map(str::to_owned);
    [compiler, cargo, sources, clippy, llvm]
}

fn debian() -> Result<()> {
    packages::install(&debian_packages().each_ref().map(String::as_str))?;
    let name = EbpfToolchain::Debian.name();
    run(&mut command(["rustup", "toolchain", "link", name, "/usr"]))
}

fn install_linker() -> Result<()> {
    let toolchain = EbpfToolchain::installed().context("no compiler for eBPF programs")?;
    let llvm = llvm_version(toolchain)?;
    if !has_llvm(llvm) {
        packages::install(&[&format!("llvm-{llvm}-dev")])?;
    }
    // LLVM's libraries want these, and not every package of LLVM brings them.
    packages::install(&["zlib1g-dev", "libzstd-dev", "libxml2-dev", "libffi-dev"])?;
    let feature = format!("llvm-{llvm}");
    let mut cargo = install("bpf-linker");
    cargo.args(["--version", BPF_LINKER, "--no-default-features", "--features", &feature]);
    run(cargo.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}")))
}

fn has_llvm(version: u32) -> bool {
    Path::new(&format!("/usr/lib/llvm-{version}/include/llvm-c/Core.h")).exists()
}

/// The major version of a compiler's LLVM: what it writes, only this LLVM or a newer one reads.
fn llvm_version(toolchain: EbpfToolchain) -> Result<u32> {
    let version = read(&mut command(["rustup", "run", toolchain.name(), "rustc", "-Vv"]))?;
    let Some(llvm) = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")) else {
        bail!("toolchain `{}` does not say which LLVM it has", toolchain.name());
    };
    let major = llvm.split('.').next().unwrap_or_default();
    major.parse().with_context(|| format!("odd LLVM version `{llvm}`"))
}

/// Installs a program of crates.io, outside the workspace, whose settings are not for other people's
/// crates. Not optimized: that takes minutes, and what the programs do takes seconds.
fn install(program: &str) -> Command {
    let mut command = command(["cargo", "install", "-q", "--locked", "--debug", program]);
    command.current_dir("/").env("CARGO_PROFILE_DEV_DEBUG", "false");
    command
}
