//! What the demo puts on the machine, and its removal: at the end, on an error, on Ctrl-C.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{command, run, succeeds, wait_until};

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes everything it made when it goes.
pub(super) struct Stage {
    props: Arc<Mutex<Props>>,
}

/// A process on the stage; the stage owns it.
#[derive(Clone, Copy)]
pub(super) struct Process(u32);

/// What must be undone, in the order it was made.
#[derive(Default)]
struct Props {
    /// Set by the signal handler: nothing new may be made.
    closed: bool,
    undo: Vec<Undo>,
}

enum Undo {
    Process(Child),
    Namespace(String),
    Directory(PathBuf),
    File(PathBuf),
}

impl Stage {
    /// Starts with nothing on it, and clears it on Ctrl-C and SIGTERM.
    pub(super) fn open() -> Result<Self> {
        let props = Arc::new(Mutex::new(Props::default()));
        let handled = Arc::clone(&props);
        ctrlc::set_handler(move || {
            let mut props = lock(&handled);
            props.closed = true;
            props.clear();
            eprintln!("xtask: interrupted; everything is removed");
            std::process::exit(130);
        })?;
        Ok(Self { props })
    }

    /// Adds a network namespace.
    pub(super) fn namespace(&self, name: &str) -> Result<()> {
        let mut props = self.lock()?;
        run(&mut command(["ip", "netns", "add", name]))?;
        props.undo.push(Undo::Namespace(name.to_owned()));
        Ok(())
    }

    /// Adds a directory for files.
    pub(super) fn directory(&self) -> Result<PathBuf> {
        let mut props = self.lock()?;
        let path = tempfile::Builder::new().prefix("flowd-demo-").tempdir()?.keep();
        props.undo.push(Undo::Directory(path.clone()));
        Ok(path)
    }

    /// Takes charge of a file that another program makes.
    pub(super) fn file(&self, path: &Path) -> Result<()> {
        self.lock()?.undo.push(Undo::File(path.to_owned()));
        Ok(())
    }

    /// Adds a process.
    pub(super) fn spawn(&self, command: &mut Command) -> Result<Process> {
        let mut props = self.lock()?;
        let child = command.stdin(Stdio::null()).spawn();
        let child =
            child.with_context(|| format!("cannot run {}", crate::command::show(command)))?;
        let process = Process(child.id());
        props.undo.push(Undo::Process(child));
        Ok(process)
    }

    /// Waits until a process has ended well.
    pub(super) fn wait(&self, process: Process, limit: Duration) -> Result<()> {
        let mut status = None;
        wait_until(limit, || {
            let mut props = lock(&self.props);
            status = props.child(process).and_then(|child| child.try_wait().ok().flatten());
            status.is_some() || props.closed
        });
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("failed: {status}"),
            None => bail!("was not done after {} s", limit.as_secs()),
        }
    }

    /// Lets time pass, unless the demo is being ended.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        wait_until(time, || lock(&self.props).closed);
        self.check()
    }

    /// Fails when the demo is being ended.
    pub(super) fn check(&self) -> Result<()> {
        self.lock().map(drop)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Props>> {
        let props = lock(&self.props);
        if props.closed {
            bail!("interrupted");
        }
        Ok(props)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        lock(&self.props).clear();
    }
}

impl Props {
    fn child(&mut self, Process(id): Process) -> Option<&mut Child> {
        self.undo.iter_mut().find_map(|undo| match undo {
            Undo::Process(child) if child.id() == id => Some(child),
            _ => None,
        })
    }

    /// Last made, first removed. What is gone already is no error.
    fn clear(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Process(child) => end(child),
                Undo::Namespace(name) => {
                    if !succeeds(&mut command(["ip", "netns", "delete", &name])) {
                        eprintln!("xtask: cannot remove network namespace {name}");
                    }
                }
                Undo::Directory(path) => drop(fs::remove_dir_all(path)),
                Undo::File(path) => drop(fs::remove_file(path)),
            }
        }
    }
}

/// A lock that outlives a panic: what is on the stage must go all the same.
fn lock(props: &Mutex<Props>) -> MutexGuard<'_, Props> {
    props.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a process to end, and ends it when it does not.
fn end(mut child: Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    // The child is not reaped yet, so that the number is still its own.
    let asked = i32::try_from(child.id()).map(|id| kill(Pid::from_raw(id), Signal::SIGTERM));
    if asked.is_ok() && wait_until(PATIENCE, || !matches!(child.try_wait(), Ok(None))) {
        return;
    }
    // Both fail only when it is gone, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}
