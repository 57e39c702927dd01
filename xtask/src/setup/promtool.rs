//! Prometheus' own checker of metrics and rules, below the user's cache directory: the package is
//! unpacked, not installed, so that no server is started.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Missing, cache, packages};
use crate::command::{command, find, succeeds};

const PACKAGE: &str = "prometheus";

/// The program, whether or not it is there.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(cache("promtool")?.join("promtool"))
}

/// The program, when it is not there; where there is no apt, its tests say that they are skipped.
pub(super) fn missing() -> Option<Missing> {
    let is_there =
        program().is_ok_and(|program| succeeds(command([program.as_os_str()]).arg("--version")));
    (!is_there && find("apt-get").is_some()).then(|| Missing {
        what: "promtool".to_owned(),
        why: "checks /metrics, the alert rules and the dashboard; unpacked into the cache directory, \
              100 MB",
        command: format!("apt-get download {PACKAGE}; dpkg-deb -x"),
        install: Box::new(install),
    })
}

fn install() -> Result<()> {
    let program = program()?;
    let directory = program.parent().context("a program is in a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    if !packages::known(PACKAGE) {
        packages::update()?;
    }
    let work = tempfile::tempdir_in(directory)?;
    let root = packages::unpack(PACKAGE, work.path())?;
    fs::rename(root.join("usr/bin/promtool"), &program).context("the package has no promtool")
}
