//! Compiles the eBPF programs (`flowd-ebpf`), which the daemon then embeds.

#[path = "../xtask/src/setup/ebpf_toolchain.rs"]
mod ebpf_toolchain;

use std::env;

use anyhow::{Context, Result};
use aya_build::{Package, Toolchain};

use crate::ebpf_toolchain::EbpfToolchain;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../xtask/src/setup/ebpf_toolchain.rs");
    // aya-build watches flowd-ebpf only.
    println!("cargo:rerun-if-changed=../flowd-common");
    let Some(toolchain) = EbpfToolchain::installed() else {
        println!("cargo::error=no toolchain here compiles eBPF programs: run `cargo xtask setup`");
        return Ok(());
    };
    if toolchain == EbpfToolchain::Debian {
        // SAFETY: this program has one thread. Only it and the compiler it starts see the variable.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    // What line tables of the object say of a file must not depend on where it was built: it is part
    // of a package that everybody can build again. The option is unstable in the compilers that are
    // used here.
    for (name, value) in
        [("CARGO_UNSTABLE_TRIM_PATHS", "true"), ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")]
    {
        // SAFETY: as above.
        unsafe { env::set_var(name, value) };
    }
    let package = Package {
        name: "flowd-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../flowd-ebpf"),
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(toolchain.name()))
        .context("cannot compile flowd-ebpf; if a tool is missing, run `cargo xtask setup`")
}
