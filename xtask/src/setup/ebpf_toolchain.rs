//! Which installed Rust toolchain compiles the eBPF programs.
//!
//! Shared by set-up and by flowd's build script (which includes this file), so that both always
//! agree. It needs `core`'s sources (`rust-src`) and unstable features. `debian` is Debian's own
//! compiler, linked by set-up only where nightly could not be had; so where it is linked, it is the
//! one that `bpf-linker` was built for, and it comes first.

use std::path::Path;
use std::process::Command;

/// A toolchain by the name `rustup run` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EbpfToolchain {
    /// Debian's `rustc-web` with `rust-web-src`; a stable compiler that needs `RUSTC_BOOTSTRAP=1`.
    Debian,
    /// Nightly with the component `rust-src`.
    Nightly,
}

impl EbpfToolchain {
    /// The one to use, or `None` when neither can compile `core`.
    pub(crate) fn installed() -> Option<Self> {
        [Self::Debian, Self::Nightly].into_iter().find(|toolchain| toolchain.has_sources())
    }

    /// The name for `rustup run`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        }
    }

    fn has_sources(self) -> bool {
        let sysroot = Command::new("rustup")
            .args(["run", self.name(), "rustc", "--print", "sysroot"])
            .env("RUSTUP_AUTO_INSTALL", "0")
            .output();
        sysroot.is_ok_and(|output| {
            let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
            output.status.success() && core.is_file()
        })
    }
}
