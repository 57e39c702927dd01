//! Running other programs: with errors that name them, as root, with a time limit.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// Builds a command from its words.
pub(crate) fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let program = words.next().expect("a command has at least its name");
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Builds a command that runs as root: as it is for root, by sudo for everybody else.
pub(crate) fn as_root<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<Command> {
    if is_root() {
        return Ok(command(words));
    }
    if find("sudo").is_none() {
        bail!("this needs root and there is no sudo: run it as root");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").args(words);
    Ok(sudo)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Runs a command with its output on the terminal; fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; fails when it does, with what it complained about.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", show(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}", show(command), complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command runs and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// As [`succeeds`], and the command is ended when it takes longer than `limit`.
pub(crate) fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = quiet.spawn() else {
        return false;
    };
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if status.is_none() {
        // Both can fail only when the child is gone, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
    status.is_some_and(|status| status.success())
}

/// Polls `condition` until it holds (true) or `limit` has passed (false).
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Finds a program in `PATH` and where system tools live, which is not in everybody's `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The top of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the workspace")
}

/// Starts a command of cargo in the workspace.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words).current_dir(workspace());
    cargo
}

/// As [`cargo`], for what makes or uses release binaries: they do not say in whose home the sources
/// of other crates were, nor have an id that the linker takes from symbols with paths, so that
/// everybody who builds them gets the same bytes.
pub(crate) fn cargo_release(words: &[&str]) -> Command {
    let mut cargo = cargo(words);
    cargo.envs(release_flags());
    cargo
}

/// What [`cargo_release`] adds to the environment: a name and its value.
pub(crate) fn release_flags() -> Option<(&'static str, String)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let default = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let home = home.or_else(default)?;
    let remap = format!("--remap-path-prefix={}=/cargo", home.display());
    let flags = [&*remap, "-Clink-arg=-Wl,--build-id=none"];
    Some(("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")))
}

/// The command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
