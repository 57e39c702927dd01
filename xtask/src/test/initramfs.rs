//! The root file system of a test machine: busybox, the programs under test, the tools they call,
//! their shared libraries, and the kernel modules they need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::quietly;
use crate::command::{command, find, read};
use crate::setup::{Kernel, SERIES};

/// Printed by the machine in front of the tests' exit code.
pub(super) const SENTINEL: &str = "flowd-vm-exit:";
/// The line that says that the kernel has booted.
pub(super) const IS_UP: &str = "flowd-vm-up";
/// The line of a test that is about to restart the machine.
pub(super) const RESTARTS: &str = "flowd-vm-restarts";

/// What tests, tunnels and the disk load; dependencies follow by themselves.
const MODULES: &[&str] =
    &["wireguard", "sch_ingress", "cls_bpf", "veth", "tun", "dummy", "virtio_pci", "virtio_blk"];

/// Called by the tests; from the host, because busybox's lack WireGuard and BPF.
const TOOLS: &[&str] = &["ip", "tc", "wg"];

/// Writes the compressed image of a root with `programs` (name below `/usr/bin`, file) to `image`.
pub(super) fn write(
    image: &Path,
    kernel: &Kernel,
    programs: &[(&str, &Path)],
    filter: Option<&str>,
) -> Result<()> {
    let work = tempfile::tempdir()?;
    let root = work.path();
    for directory in
        ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr/bin"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    std::os::unix::fs::symlink("/run", root.join("var"))?;
    copy(&find("busybox").context("busybox is missing")?, &root.join("bin/busybox"))?;
    for (name, file) in programs {
        add_program(root, name, file)?;
    }
    for tool in TOOLS {
        add_program(root, tool, &find(tool).with_context(|| format!("{tool} is missing"))?)?;
    }
    let modules = add_modules(root, kernel, MODULES)?;
    let init = root.join("init");
    fs::write(&init, init_script(kernel.series, &modules, filter))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    pack(root, image)
}

/// Tests that ask nothing of the kernel's WireGuard, and of its hooks nothing that the root tier's
/// kernel does not answer too: they run there only, unless a filter names them.
const INDEPENDENT: [&str; 23] = [
    "api",
    "audit",
    "confined",
    "crash",
    "examples",
    "export",
    "identity",
    "live",
    "metrics",
    "monitoring",
    "operations",
    "order",
    "package",
    "policy",
    "pressure",
    "queries",
    "records",
    "refusals",
    "sealed",
    "sidecar",
    "sql",
    "store",
    "watchdog",
];

/// What the oldest kernel need not repeat: these ask WireGuard's counters and the store, which are
/// the same on the newest, and nothing of how the program is attached; restarts on it are the install
/// tier's, whose machine has the same kernel.
const INDEPENDENT_OF_THE_HOOK: [&str; 7] =
    ["change", "coverage", "gaps", "harness", "mishaps", "restart", "ways_past"];

/// What the newest kernel need not repeat: what a policy drops of the kernel's WireGuard, and how flowd
/// is started again on it, the oldest says; at the newest one's hook, the root tier does.
const SEEN_ON_THE_OLDEST: [&str; 2] = ["enforcement", "restart"];

/// The modules whose tests a kernel of a series does not run.
fn skipped(series: &str) -> Vec<&'static str> {
    let others: &[&str] = match SERIES.first() {
        Some(oldest) if *oldest == series => &INDEPENDENT_OF_THE_HOOK,
        _ => &SEEN_ON_THE_OLDEST,
    };
    INDEPENDENT.iter().chain(others).copied().collect()
}

/// The first process: makes the system usable, runs the tests, powers off. The tests that restart
/// the machine come last, in every boot; the others in the first.
fn init_script(series: &str, modules: &[String], filter: Option<&str>) -> String {
    let mut script = format!(
        "#!/bin/busybox sh
export PATH=/usr/bin:/bin HOME=/root WG_COLOR_MODE=never
/bin/busybox --install -s /bin
echo {IS_UP}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/lib /run/run /disk
ip link set lo up
",
    );
    for module in modules {
        // Writing to a string cannot fail.
        let _ = writeln!(script, "insmod /modules/{module} || echo cannot load {module}");
    }
    let filter = match filter {
        Some(filter) => format!(" '{}'", filter.replace('\'', r"'\''")),
        None => skipped(series).iter().map(|module| format!(" --skip {module}::")).collect(),
    };
    let _ = write!(
        script,
        "ip link add wgprobe type wireguard && wg show wgprobe && ip link del wgprobe \\
    || echo this kernel has no WireGuard
mount -t ext4 /dev/vda /disk || {{ echo this machine has no disk; poweroff -f; }}
export FLOWD_TEST_WG=kernel FLOWD_TEST_OWN_MACHINE=1 FLOWD_TEST_DISK=/disk
export FLOWD_BIN=/usr/bin/flowd FLOWCTL_BIN=/usr/bin/flowctl
cd /root
if [ ! -e /disk/code ]; then
    tests --test-threads=1 --skip reboot::{filter}
    echo $? > /disk/code
    sync
fi
code=$(cat /disk/code)
if tests --list{filter} | grep -q '^reboot::'; then
    tests --test-threads=1 reboot:: || code=$?
fi
echo \"{SENTINEL} $code\"
poweroff -f
"
    );
    script
}

/// Copies a program to `/usr/bin`, and its shared libraries to where the loader looks for them.
fn add_program(root: &Path, name: &str, file: &Path) -> Result<()> {
    copy(file, &root.join("usr/bin").join(name))?;
    // A static program makes ldd fail, and needs nothing.
    let libraries = read(command(["ldd"]).arg(file)).unwrap_or_default();
    for library in libraries.lines().filter_map(library) {
        let inside = root.join(library.strip_prefix("/").unwrap_or(library));
        if !inside.exists() {
            let directory = inside.parent().expect("a library is in a directory");
            fs::create_dir_all(directory)?;
            copy(library, &inside)?;
        }
    }
    Ok(())
}

/// The file in `libc.so.6 => /lib/libc.so.6 (0x7f…)` and in `/lib64/ld-linux.so.2 (0x7f…)`.
fn library(line: &str) -> Option<&Path> {
    let path = line.split_once("=>").map_or(line, |(_name, path)| path);
    let path = path.split_whitespace().next()?;
    path.starts_with('/').then(|| Path::new(path))
}

/// Copies modules and what they need to `/modules`; returns their names in the order of loading.
pub(super) fn add_modules(root: &Path, kernel: &Kernel, modules: &[&str]) -> Result<Vec<String>> {
    let directory = kernel.modules();
    let table = fs::read_to_string(directory.join("modules.dep"))?;
    let builtin = fs::read_to_string(directory.join("modules.builtin"))?;
    let table = dependencies(&table);
    let mut order: Vec<PathBuf> = Vec::new();
    for module in modules {
        let found = table.iter().find(|(path, _)| name(path) == *module);
        let Some((path, needs)) = found else {
            if builtin.lines().any(|path| name(path) == *module) {
                continue;
            }
            bail!("kernel {} has no module {module}", kernel.release);
        };
        // depmod lists what must be loaded first last.
        for path in needs.iter().rev().chain([path]) {
            let path = directory.join(path);
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    let mut names = Vec::new();
    for path in order {
        let file = path.file_name().context("a module is a file")?.to_string_lossy().into_owned();
        fs::copy(&path, root.join("modules").join(&file))
            .with_context(|| format!("cannot copy {}", path.display()))?;
        names.push(file);
    }
    Ok(names)
}

/// Reads `modules.dep`: `module: needed needed`.
fn dependencies(table: &str) -> BTreeMap<&str, Vec<&str>> {
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(module, needed)| (module, needed.split_whitespace().collect())).collect()
}

/// A module's name from its path: `-` and `_` are the same to the kernel.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Writes the compressed archive of `root` to `image`.
pub(super) fn pack(root: &Path, image: &Path) -> Result<()> {
    let mut find = command(["find", ".", "-print0"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run find")?;
    let names = find.stdout.take().expect("stdout is piped");
    let archive = image.with_extension("cpio");
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--null", "--quiet", "-R", "0:0"]);
    cpio.current_dir(root).stdin(names).stdout(fs::File::create(&archive)?);
    let packed = cpio.status().context("cannot run cpio")?;
    let listed = find.wait()?;
    if !packed.success() || !listed.success() {
        bail!("cannot pack the test machine's root");
    }
    quietly(command(["gzip", "-1", "-f", "-S", ".gz"]).arg(&archive))?;
    fs::rename(image.with_extension("cpio.gz"), image)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let cases = [
            ("\tlinux-vdso.so.1 (0x00007ffd)", None),
            ("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)", Some("/lib/x/libc.so.6")),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tlibodd.so => not found", None),
            ("\tstatically linked", None),
        ];
        for (line, expected) in cases {
            assert_eq!(library(line), expected.map(Path::new), "{line}");
        }
    }

    #[test]
    fn a_modules_name_has_no_dash_and_no_directory() {
        assert_eq!(name("kernel/arch/x86/crypto/chacha-x86_64.ko"), "chacha_x86_64");
    }

    #[test]
    fn a_filter_cannot_leave_its_quotes() {
        let script = init_script("6.12", &["veth.ko".to_owned()], Some("it's"));
        assert!(script.contains(r"--skip reboot:: 'it'\''s'"), "{script}");
    }

    #[test]
    fn the_oldest_kernel_runs_what_depends_on_the_hook() {
        let scripts = [SERIES[0], SERIES[1]].map(|series| init_script(series, &[], None));
        assert!(scripts.iter().all(|script| script.contains("--skip crash::")));
        let skip = |module: &str| {
            let word = format!("--skip {module}::");
            scripts.each_ref().map(|script| script.contains(&word))
        };
        assert_eq!(skip("coverage"), [true, false]);
        assert_eq!(skip("enforcement"), [false, true]);
        assert_eq!(skip("counting"), [false, false]);
    }
}
