//! `cargo xtask dist`: a Debian package and a tarball of what a gateway needs, in `target/dist/`.
//!
//! - the release binaries are built, with no path of this machine in them
//! - `tree` lays out everything as it is installed
//! - cargo-deb and tar pack it
//!
//! The same sources make the same bytes, whoever builds them where: times in archives are that of the
//! commit.

mod licences;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, read, run, workspace};
use crate::setup::{self, Purpose};
use crate::test::build_release;

/// What was made.
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    pub(crate) tarball: PathBuf,
}

/// Builds and packs; with `no_build` packs the release binaries as they are.
pub(crate) fn run_all(no_build: bool) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Dist])?;
    let (flowd, flowctl) = if no_build {
        let built = |name| workspace().join("target/release").join(name);
        (built("flowd"), built("flowctl"))
    } else {
        build_release()?
    };
    let Packages { deb, tarball } = pack(&flowd, &flowctl)?;
    println!("{}\n{}", deb.display(), tarball.display());
    Ok(())
}

/// Packs these binaries.
pub(crate) fn pack(flowd: &Path, flowctl: &Path) -> Result<Packages> {
    let dist = workspace().join("target/dist");
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    let epoch = epoch()?;
    let tree = dist.join("tree");
    tree::lay_out(&tree, flowd, flowctl, epoch)?;
    let deb = deb(&dist, epoch)?;
    let tarball = tarball(&dist, &tree, epoch)?;
    Ok(Packages { deb, tarball })
}

/// Packs twice, and fails when the second time makes other bytes.
pub(crate) fn pack_twice(flowd: &Path, flowctl: &Path) -> Result<Packages> {
    let digests = |packages: &Packages| {
        let Packages { deb, tarball } = packages;
        let sums = read(command(["sha256sum"]).args([deb, tarball]))?;
        Ok::<_, anyhow::Error>(sums)
    };
    let first = digests(&pack(flowd, flowctl)?)?;
    let packages = pack(flowd, flowctl)?;
    let second = digests(&packages)?;
    if first != second {
        bail!("the same files were packed twice, not to the same bytes:\n{first}{second}");
    }
    Ok(packages)
}

/// The time that everything in an archive has, in Unix seconds: `SOURCE_DATE_EPOCH`, else the
/// commit's.
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => read(command(["git", "log", "-1", "--format=%ct"]).current_dir(workspace()))
            .context("this is no clone: set SOURCE_DATE_EPOCH")?,
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, no number"))
}

fn deb(dist: &Path, epoch: u64) -> Result<PathBuf> {
    let made = dist.join("deb");
    if made.exists() {
        fs::remove_dir_all(&made).with_context(|| format!("cannot remove {}", made.display()))?;
    }
    fs::create_dir_all(&made).with_context(|| format!("cannot create {}", made.display()))?;
    // Stripped already, and by xz of the system, which every dpkg reads.
    let words =
        ["deb", "--quiet", "--no-build", "--no-strip", "--compress-type=xz", "--compress-system"];
    let mut cargo_deb = cargo(&words);
    cargo_deb.args(["-p", "flowd", "-o"]).arg(&made);
    run(cargo_deb.env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    let found: Vec<PathBuf> = fs::read_dir(&made)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let [deb] = found.as_slice() else {
        bail!("cargo-deb made {} files in {}, not one package", found.len(), made.display());
    };
    let place = dist.join(deb.file_name().context("a path of a file")?);
    fs::rename(deb, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

fn tarball(dist: &Path, tree: &Path, epoch: u64) -> Result<PathBuf> {
    let name = format!("flowd-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let place = dist.join(format!("{name}.tar.gz"));
    let mut tar = command(["tar", "--create", "--format=gnu", "--sort=name", "--numeric-owner"]);
    tar.args(["--owner=0", "--group=0", "--use-compress-program=gzip -n -9"])
        .arg(format!("--mtime=@{epoch}"))
        .arg(format!("--transform=s,^\\.,{name},"))
        .arg("--directory")
        .arg(tree)
        .arg("--file")
        .arg(&place)
        .arg(".");
    run(&mut tar)?;
    Ok(place)
}
