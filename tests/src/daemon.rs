//! A running flowd.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::{machine, namespace::Namespace, site::Site, usage::Usage, wait};

/// How long an orderly end may take.
fn stop_limit() -> Duration {
    Duration::from_secs(machine::size(30, 120))
}

/// Ends with the guard; [`Daemon::stop`] also asserts that it ended well.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Starts and waits until the socket answers.
    pub fn start(site: &Site, namespace: &Namespace) -> Self {
        let mut daemon = Self::begin(site, namespace);
        wait::until(wait::SOON, "flowd answers", || {
            let ended = daemon.child().try_wait().expect("our child");
            assert!(ended.is_none(), "flowd ended: {}", daemon.log());
            UnixStream::connect(site.socket()).is_ok()
        });
        daemon
    }

    /// Starts, and waits for nothing.
    pub fn begin(site: &Site, namespace: &Namespace) -> Self {
        let log = site.path("flowd.log");
        let stderr = File::create(&log).expect("room");
        let child = site
            .flowd(namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("flowd is built");
        Self { child: Some(child), log }
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM; it must end with 0 and must not have complained.
    pub fn stop(mut self) {
        self.signal(libc::SIGTERM);
        let mut child = self.child.take().expect("running until here");
        let status =
            wait::until_some(stop_limit(), "flowd ends", || child.try_wait().expect("our child"));
        let log = self.log();
        assert_eq!(status.code(), Some(0), "{status}: {log}");
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    }

    /// What it takes of the machine.
    pub fn usage(&self) -> Usage {
        Usage::of(self.child.as_ref().expect("running until it is stopped").id())
    }

    /// What the kernel says of it in `/proc/PID/status`.
    pub fn status(&self) -> String {
        let id = self.child.as_ref().expect("running until it is stopped").id();
        fs::read_to_string(format!("/proc/{id}/status")).expect("our child")
    }

    /// SIGHUP.
    pub fn read_names(&mut self) {
        self.signal(libc::SIGHUP);
    }

    /// SIGSTOP: it does nothing until [`Daemon::resume`].
    pub fn pause(&mut self) {
        self.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.child().id());
        wait::until(wait::SOON, "flowd stands still", || {
            let stat = fs::read_to_string(&stat).expect("our child");
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        });
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("running until here");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child().try_wait().expect("our child")
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("running until it is stopped")
    }

    fn signal(&mut self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child().id()).expect("pids fit");
        // SAFETY: the process is our child and not yet waited for, so the id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "flowd is running");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- flowd's log\n{}---", self.log());
        }
    }
}
