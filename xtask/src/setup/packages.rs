//! Debian packages, each looked for by the program it brings.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Missing, Purpose};
use crate::command::{as_root, command, find, run, succeeds};

/// A program, the package that brings it, and what for.
struct Tool {
    program: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
    why: &'static str,
}

const EVERY: &[Purpose] = &[
    Purpose::Build,
    Purpose::Test,
    Purpose::Fuzz,
    Purpose::Vm,
    Purpose::Demo,
    Purpose::Lint,
    Purpose::Dist,
];
const TUNNELS: &[Purpose] = &[Purpose::Test, Purpose::Vm, Purpose::Demo];
const VM: &[Purpose] = &[Purpose::Vm];
const DIST: &[Purpose] = &[Purpose::Dist];

const TOOLS: &[Tool] = &[
    tool("cc", "gcc", EVERY, "compiles SQLite"),
    tool("c++", "g++", EVERY, "links LLVM into bpf-linker, compiles libFuzzer"),
    tool("wg", "wireguard-tools", TUNNELS, "sets up tunnels"),
    tool("wireguard-go", "wireguard-go", TUNNELS, "tunnels without a kernel module"),
    tool("ip", "iproute2", TUNNELS, "makes network namespaces"),
    tool("ping", "iputils-ping", &[Purpose::Test, Purpose::Demo], "makes ICMP traffic"),
    tool("curl", "curl", &[Purpose::Test], "types the examples of docs/api.md"),
    tool("sqlite3", "sqlite3", &[Purpose::Test], "makes the backup of docs/operations.md"),
    tool("qemu-system-x86_64", "qemu-system-x86", VM, "boots the test kernels"),
    tool("busybox", "busybox-static", VM, "user space of the test machines"),
    tool("depmod", "kmod", VM, "finds kernel modules' dependencies"),
    tool("mkfs.ext4", "e2fsprogs", VM, "makes the test machines' disk"),
    tool("cpio", "cpio", VM, "packs the test machines' root"),
    tool("xz", "xz-utils", &[Purpose::Vm, Purpose::Dist], "unpacks kernel modules, packs packages"),
    tool("strip", "binutils", DIST, "takes symbols out of the packaged programs"),
    tool("dpkg-deb", "dpkg", &[Purpose::Vm, Purpose::Dist], "unpacks and makes packages"),
    tool("systemd-analyze", "systemd", &[Purpose::Test], "checks flowd's units"),
    tool("systemd-sysusers", "systemd", &[Purpose::Test], "checks flowd's user"),
    tool("setpriv", "util-linux", &[Purpose::Test], "runs flowd with few capabilities"),
];

const fn tool(
    program: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
    why: &'static str,
) -> Tool {
    Tool { program, package, purposes, why }
}

/// The tools that these purposes need and that are not there.
pub(super) fn missing(purposes: &[Purpose]) -> Vec<Missing> {
    TOOLS
        .iter()
        .filter(|tool| tool.purposes.iter().any(|purpose| purposes.contains(purpose)))
        .filter(|tool| find(tool.program).is_none())
        .map(|tool| {
            let packages = [tool.package];
            Missing {
                what: tool.package.to_owned(),
                why: tool.why,
                command: apt_command(&packages),
                install: Box::new(move || install(&packages)),
            }
        })
        .collect()
}

/// The command that [`install`] runs, for people.
pub(super) fn apt_command(packages: &[&str]) -> String {
    format!("apt-get install {}", packages.join(" "))
}

/// Installs Debian packages; fetches the package lists first when they do not know one of them.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this is not Debian: install what it calls {}", packages.join(" "));
    }
    if !packages.iter().all(|package| known(package)) {
        update()?;
    }
    let arguments = ["apt-get", "install", "-y", "-q", "--no-install-recommends"];
    let words = ["env", "DEBIAN_FRONTEND=noninteractive"].iter().chain(&arguments).chain(packages);
    run(&mut as_root(words)?)
}

/// Fetches the package lists.
pub(super) fn update() -> Result<()> {
    run(&mut as_root(["apt-get", "update", "-q"])?)
}

/// Fetches a package that the lists know and unpacks it below `work`, without installing it. Where to.
pub(super) fn unpack(package: &str, work: &Path) -> Result<PathBuf> {
    run(command(["apt-get", "download", "-q", "-oAPT::Sandbox::User=root", package])
        .current_dir(work))?;
    let archive = fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    let root = work.join("root");
    run(command(["dpkg-deb", "-x"]).arg(&archive).arg(&root))?;
    Ok(root)
}

/// Whether Debian has the package, by package lists that are fetched when old ones lack it.
pub(super) fn obtainable(package: &str) -> bool {
    find("apt-get").is_some() && (known(package) || (update().is_ok() && known(package)))
}

/// Whether the package lists have the package.
pub(super) fn known(package: &str) -> bool {
    succeeds(&mut command(["apt-cache", "show", "--no-all-versions", package]))
}
