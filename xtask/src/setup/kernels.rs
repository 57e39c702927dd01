//! Debian's kernels for the test machines, unpacked below the user's cache directory.
//!
//! `…/flowd/vm/6.12/` holds one unpacked kernel package; it is moved there when complete, so what
//! is there can be used.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Missing, cache, packages};
use crate::command::{command, find, read, run};

/// The kernels that tests run on: the last with clsact only, and one with tcx.
pub(crate) const SERIES: &[&str] = &["6.1", "6.12"];

/// An unpacked kernel package.
pub(crate) struct Kernel {
    pub(crate) series: &'static str,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    root: PathBuf,
}

impl Kernel {
    /// Finds the kernel that set-up has unpacked.
    pub(crate) fn cached(series: &'static str) -> Result<Self> {
        let root = cache("vm")?.join(series);
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .with_context(|| format!("no kernel {series}: run `cargo xtask setup --for vm`"))?
            .file_name();
        Ok(Self { series, release: release.to_string_lossy().into_owned(), root })
    }

    /// The bootable image.
    pub(crate) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The directory that holds `modules.dep`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// The kernel of a series, when it is not unpacked yet.
pub(super) fn missing(series: &'static str) -> Option<Missing> {
    if Kernel::cached(series).is_ok() {
        return None;
    }
    Some(Missing {
        what: format!("Debian's kernel {series}"),
        why: "tests with the kernel's own WireGuard",
        command: format!("apt-get download linux-image-{series}.*-cloud-amd64; dpkg-deb -x"),
        install: Box::new(move || unpack(series)),
    })
}

fn unpack(series: &str) -> Result<()> {
    let unpacked = cache("vm")?;
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot create {}", unpacked.display()))?;
    let work = tempfile::tempdir_in(&unpacked)?;
    let package = match newest(series)? {
        Some(package) => package,
        None => {
            packages::update()?;
            newest(series)?.with_context(|| format!("apt has no cloud kernel {series}"))?
        }
    };
    let root = packages::unpack(&package, work.path())?;
    let modules = root.join("lib/modules");
    let Some(release) = fs::read_dir(&modules)?.next() else {
        bail!("{package} has no modules");
    };
    let release = release?.file_name();
    decompress(&modules)?;
    let depmod = find("depmod").context("depmod is missing")?;
    run(command([depmod]).arg("-b").arg(&root).arg(&release))?;
    fs::rename(&root, unpacked.join(series)).context("cannot move the kernel into the cache")
}

/// The newest package of a series that apt can fetch.
fn newest(series: &str) -> Result<Option<String>> {
    // Not `…-cloud-amd64-dbg`, and not `linux-image-6.12-cloud-amd64`, which holds nothing.
    let series = series.replace('.', r"\.");
    let pattern = format!(r"^linux-image-{series}\..*-cloud-amd64$");
    let names = read(&mut command(["apt-cache", "search", "--names-only", &pattern]))?;
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| packages::known(name))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned))
}

/// The numbers in a package's name, which order its versions.
fn numbers(name: &str) -> Vec<u32> {
    let digits = name.split(|letter: char| !letter.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// Unpacks `*.ko.xz`, because busybox's insmod reads plain modules only.
fn decompress(directory: &Path) -> Result<()> {
    run(command(["find"])
        .arg(directory)
        .args(["-name", "*.ko.xz", "-exec", "xz", "-d", "-q", "{}", "+"]))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_ordered_by_number_not_by_letter() {
        let older = "linux-image-6.12.99+deb12-cloud-amd64";
        let newer = "linux-image-6.12.117+deb12-cloud-amd64";
        assert!(numbers(older) < numbers(newer));
    }
}
