//! Debian 12 with systemd, installed into the file that a test machine boots from.
//!
//! `…/flowd/vm/debian-12-HASH.ext4` is one file system, named after what made it, moved there
//! when complete. A machine gets a copy.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Kernel, Missing, SERIES, cache};
use crate::command::{as_root, find, read};

/// Debian 12.
const SUITE: &str = "bookworm";
/// What the package and an operator of a gateway need, beyond the smallest Debian.
const PACKAGES: &str = "systemd,systemd-sysv,wireguard-tools,iproute2,kmod,bpftool,procps";
/// Of the file system, most of which is never written.
const SIZE: &str = "1G";

/// Where the machine finds what it is to run.
pub(crate) const LOAD: &str = "/srv/load";
/// The program there.
pub(crate) const PROGRAM: &str = "/srv/load/install";

/// Units that an emulated machine has no time for: nobody logs in, and nothing is downloaded.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
];

/// Runs the program behind everything that an operator's machine starts at boot. Not ordered before
/// the target that wants it, for it is behind it.
const UNIT: &str = "[Unit]
Description=What an operator does
DefaultDependencies=no
After=multi-user.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=exec
WorkingDirectory=/root
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Environment=DEBIAN_FRONTEND=noninteractive WG_COLOR_MODE=never RUST_BACKTRACE=0
Environment=FLOWD_TEST_OWN_MACHINE=1 FLOWD_TEST_WG=kernel FLOWD_TEST_DISK=/var/lib/operator
ExecStart=/srv/load/install
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
";

/// Messages of the journal go to no console: the program has it.
const JOURNAL: &str = "[Journal]\nStorage=persistent\nForwardToConsole=no\nForwardToKMsg=no\n";

/// The image that set-up has made.
pub(crate) fn image(kernel: &Kernel) -> Result<PathBuf> {
    let path = path(kernel)?;
    path.is_file()
        .then_some(path)
        .context("no image of Debian: run `cargo xtask setup --for install`")
}

/// The kernel of the machine: Debian 12's own.
pub(crate) fn kernel() -> Result<Kernel> {
    Kernel::cached(SERIES[0])
}

/// The image, when it is not there yet.
pub(super) fn missing() -> Option<Missing> {
    if kernel().and_then(|kernel| image(&kernel)).is_ok() {
        return None;
    }
    Some(Missing {
        what: "Debian 12 with systemd, 400 MB in the cache directory".to_owned(),
        why: "the machine that the package is installed on; some minutes",
        command: format!("debootstrap --variant=minbase --include={PACKAGES} {SUITE}; mke2fs -d"),
        install: Box::new(make),
    })
}

/// It changes with everything that it is made of.
fn path(kernel: &Kernel) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES, SIZE, MASKED, UNIT, JOURNAL, &kernel.release).hash(&mut hasher);
    Ok(cache("vm")?.join(format!("debian-12-{:016x}.ext4", hasher.finish())))
}

fn make() -> Result<()> {
    let kernel = kernel()?;
    let image = path(&kernel)?;
    let directory = image.parent().context("a file is in a directory")?;
    for entry in fs::read_dir(directory)?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("debian-12-") {
            fs::remove_file(entry.path())?;
        }
    }
    let work = tempfile::tempdir_in(directory)?;
    let root = work.path().join("root");
    let done = fill(&root, &kernel, work.path()).and_then(|()| pack(&root, work.path()));
    // Root's files are in it, which nobody else can remove. What is mounted there is not touched.
    read(as_root(["rm", "-rf", "--one-file-system"])?.arg(&root))?;
    fs::rename(done?, image).context("cannot move the image of Debian into the cache")
}

fn fill(root: &Path, kernel: &Kernel, work: &Path) -> Result<()> {
    let debootstrap = find("debootstrap").context("debootstrap is missing")?;
    let mut debootstrap = as_root([debootstrap])?;
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]);
    read(debootstrap.arg(root))?;
    let downloaded = ["var/cache/apt/archives", "var/lib/apt/lists"];
    for directory in downloaded.map(|directory| root.join(directory)) {
        read(as_root(["find"])?.arg(directory).args(["-type", "f", "-delete"]))?;
    }
    let ours = work.join("ours");
    add_configuration(&ours)?;
    let copy = || as_root(["cp", "-a", "--no-preserve=ownership"]);
    read(copy()?.arg(ours.join(".")).arg(root))?;
    let modules = root.join("usr/lib/modules");
    read(as_root(["mkdir", "-p"])?.arg(&modules))?;
    read(copy()?.arg(kernel.modules()).arg(&modules))?;
    Ok(())
}

/// What is not in Debian's packages, in a tree of its own.
fn add_configuration(ours: &Path) -> Result<()> {
    let units = ours.join("etc/systemd/system");
    let wanted = units.join("multi-user.target.wants");
    let journal = ours.join("etc/systemd/journald.conf.d");
    let load = ours.join(LOAD.trim_start_matches('/'));
    for directory in [&wanted, &journal, &load] {
        fs::create_dir_all(directory)?;
    }
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    fs::write(units.join("operator.service"), UNIT)?;
    symlink("../operator.service", wanted.join("operator.service"))?;
    fs::write(journal.join("console.conf"), JOURNAL)?;
    fs::write(ours.join("etc/hostname"), "gateway\n")?;
    fs::write(ours.join("etc/hosts"), "127.0.0.1 localhost gateway\n")?;
    Ok(())
}

fn pack(root: &Path, work: &Path) -> Result<PathBuf> {
    let image = work.join("image");
    let mke2fs = find("mke2fs").context("mke2fs is missing")?;
    let mut mke2fs = as_root([mke2fs])?;
    mke2fs.args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", "-d"]);
    read(mke2fs.arg(root).arg(&image).arg(SIZE))?;
    read(as_root(["chmod", "644"])?.arg(&image))?;
    Ok(image)
}
