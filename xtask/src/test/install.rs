//! The tier `install`: flowd's package on a Debian of its own, with systemd and the kernel's
//! WireGuard, from the installation over an upgrade and a reboot to the purge.
//!
//! The steps are in `tests/tests/install/`. Each goes on where the one before has left the machine,
//! so a filter that matches one runs all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::machine::{self, Parts};
use super::outcome::Outcome;
use super::{build, build_release, executable, initramfs, quietly};
use crate::command::{command, find, read, run as run_command};
use crate::dist;
use crate::setup::{Kernel, debian};

/// What the first file systems need.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// What the machine is given.
pub(super) struct Load {
    /// The program with the steps.
    steps: PathBuf,
    /// The package.
    package: PathBuf,
    /// The same of a higher version.
    upgrade: PathBuf,
    /// Where that is.
    _work: TempDir,
}

impl Load {
    /// Builds it; `None`: no step matches.
    pub(super) fn build(filter: Option<&str>) -> Result<Option<Self>> {
        let steps = build_steps()?;
        let names = read(command([&steps]).arg("--list"))?;
        if !names.lines().any(|name| filter.is_none_or(|filter| name.contains(filter))) {
            return Ok(None);
        }
        let work = tempfile::tempdir()?;
        let (package, upgrade) = packages(work.path())?;
        Ok(Some(Self { steps, package, upgrade, _work: work }))
    }
}

/// Runs the steps on a machine of their own.
pub(super) fn run(load: &Load) -> Result<Outcome> {
    let started = Instant::now();
    let outcome = on_a_machine(load)?;
    println!("[install] {} in {} s", outcome.tally, started.elapsed().as_secs());
    Ok(outcome)
}

fn build_steps() -> Result<PathBuf> {
    let words = ["test", "--release", "-p", "flowd-tests", "--test", "install", "--no-run"];
    executable(&build(&words)?, "install")
}

fn on_a_machine(load: &Load) -> Result<Outcome> {
    let kernel = debian::kernel()?;
    let image = debian::image(&kernel)?;
    let work = tempfile::tempdir()?;
    let [initrd, system, disk] = ["initrd", "system", "load"].map(|name| work.path().join(name));
    write_initrd(&initrd, &kernel)?;
    quietly(command(["cp", "--sparse=always"]).args([&image, &system]))?;
    write_load(&disk, load)?;
    let disks: [&Path; 2] = [&system, &disk];
    machine::run(&Parts { label: "install", kernel: &kernel, initrd: &initrd, disks: &disks })
}

/// Mounts the two disks, and leaves the rest to systemd.
fn write_initrd(image: &Path, kernel: &Kernel) -> Result<()> {
    let work = tempfile::tempdir()?;
    let root = work.path();
    for directory in ["bin", "dev", "modules", "proc", "root"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let busybox = find("busybox").context("busybox is missing")?;
    initramfs::copy(&busybox, &root.join("bin/busybox"))?;
    let modules = initramfs::add_modules(root, kernel, MODULES)?;
    let load: String = modules.iter().map(|name| format!("insmod /modules/{name}\n")).collect();
    let script = format!(
        "#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
{load}mount -t ext4 /dev/vda /root && mount -t ext4 -o ro /dev/vdb /root{at} || poweroff -f
umount /proc
mount --move /dev /root/dev
exec switch_root /root /lib/systemd/systemd
",
        at = debian::LOAD
    );
    let init = root.join("init");
    fs::write(&init, script)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    initramfs::pack(root, image)
}

/// The disk that the machine finds at [`debian::LOAD`].
fn write_load(disk: &Path, load: &Load) -> Result<()> {
    let work = tempfile::tempdir()?;
    let Load { steps, package, upgrade, _work: _ } = load;
    let program = debian::PROGRAM.rsplit('/').next().expect("a path has a name");
    for (file, name) in [(steps, program), (package, "flowd.deb"), (upgrade, "upgrade.deb")] {
        initramfs::copy(file, &work.path().join(name))?;
    }
    let mke2fs = find("mke2fs").context("mke2fs is missing")?;
    let bytes: u64 = [steps, package, upgrade]
        .iter()
        .map(|file| fs::metadata(file).map(|metadata| metadata.len()))
        .sum::<std::io::Result<u64>>()?;
    let mebibytes = (bytes >> 20) + 32;
    quietly(
        command([mke2fs])
            .args(["-q", "-t", "ext4", "-d"])
            .args([work.path(), disk])
            .arg(format!("{mebibytes}M")),
    )
}

/// The package of these sources, and the same of a higher version.
fn packages(work: &Path) -> Result<(PathBuf, PathBuf)> {
    let (flowd, flowctl) = build_release()?;
    let package = dist::pack(&flowd, &flowctl)?.deb;
    let tree = work.join("tree");
    run_command(command(["dpkg-deb", "-R"]).args([&package, &tree]))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let next = text.lines().map(|line| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}+next\n"),
        None => format!("{line}\n"),
    });
    fs::write(&control, next.collect::<String>())?;
    let upgrade = work.join("upgrade.deb");
    quietly(
        command(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b"]).args([&tree, &upgrade]),
    )?;
    Ok((package, upgrade))
}
