//! Network namespaces that live as long as their guard.
//!
//! A namespace has no name in `/run/netns`: a file descriptor holds it, so that even a killed test
//! leaves nothing behind. `ip` reaches it as [`Namespace::path`].

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io,
    marker::PhantomData,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use tempfile::TempDir;

/// Where wireguard-go, `wg` and flowd meet for a userspace interface.
const WIREGUARD_SOCKETS: [&str; 2] = ["/var/run/wireguard", "/run/wireguard"];

/// One network namespace, with a directory of its own for WireGuard's sockets.
#[derive(Debug)]
pub struct Namespace {
    label: String,
    net: File,
    sockets: TempDir,
}

/// The calling thread is inside a [`Namespace`] until this is dropped. It speaks of one thread, so
/// it must not go to another.
#[derive(Debug)]
pub struct Entered {
    home: File,
    not_send: PhantomData<*const ()>,
}

impl Namespace {
    /// A new namespace with `lo` up. `label` is for messages.
    pub fn new(label: &str) -> Self {
        let net = thread::spawn(|| {
            // SAFETY: the call takes no pointers and changes this thread alone, which ends here.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "a network namespace: {}", io::Error::last_os_error());
            current()
        })
        .join()
        .expect("the namespace's thread ends well");
        let sockets = tempfile::tempdir().expect("a directory for WireGuard's sockets");
        let namespace = Self { label: label.to_owned(), net, sockets };
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        namespace.sysctl("net/ipv6/conf/default/accept_ra", "0");
        namespace.sysctl("net/ipv6/conf/default/router_solicitations", "0");
        // The first report of a multicast membership goes out at once, the second some time within
        // this interval: not during a test.
        let never_ms = "2000000000";
        namespace.sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", never_ms);
        namespace.ip("link set lo up");
        namespace
    }

    /// The one that this process is in, as it is.
    pub fn here(label: &str) -> Self {
        let sockets = tempfile::tempdir().expect("a directory for WireGuard's sockets");
        Self { label: label.to_owned(), net: current(), sockets }
    }

    /// What it is called in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What `ip link … netns` takes.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Where the sockets of its userspace interfaces are.
    pub fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// Moves the calling thread in. Sockets that are made meanwhile stay in the namespace.
    pub fn enter(&self) -> Entered {
        let home = current();
        set_namespace(self.net.as_raw_fd()).expect("entering a namespace needs root");
        Entered { home, not_send: PhantomData }
    }

    /// The result of `work` inside.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.enter();
        work()
    }

    /// Writes below `/proc/sys`; what this kernel does not have stays as it is not.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("{}: {} = {value}: {error}", self.label, path.display())
            }
            _ => {}
        });
    }

    /// A command that will run inside, sees only this namespace's WireGuard sockets, and dies with
    /// the thread that started it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        for dir in WIREGUARD_SOCKETS {
            fs::create_dir_all(dir).expect("a place for WireGuard's sockets");
        }
        let mut command = Command::new(program);
        let net = self.net.as_raw_fd();
        let sockets = c_path(self.sockets());
        let places = WIREGUARD_SOCKETS.map(|dir| c_path(Path::new(dir)));
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates
        // nor takes a lock, and what it borrows was made before.
        unsafe {
            command.pre_exec(move || {
                set_namespace(net)?;
                own_mounts(&sockets, &places)?;
                die_with_parent()
            })
        };
        command
    }

    /// Runs a program to its end and returns what it printed; failure is a panic that shows it.
    pub fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        self.expect_success(program, args, output)
    }

    /// Runs `ip` with the words of one line.
    pub fn ip(&self, line: &str) -> String {
        self.output("ip", &line.split_whitespace().collect::<Vec<_>>())
    }

    fn expect_success(&self, program: &str, args: &[&str], output: Output) -> String {
        let Output { status, stdout, stderr } = output;
        assert!(
            status.success(),
            "{}: `{program} {}`: {status}: {}",
            self.label,
            args.join(" "),
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).expect("text")
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Self { home, not_send: _ } = self;
        set_namespace(home.as_raw_fd()).expect("the way back is open");
    }
}

/// The network namespace of the calling thread.
fn current() -> File {
    File::open(PathBuf::from("/proc/thread-self/ns/net")).expect("/proc is mounted")
}

fn set_namespace(net: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointers and changes the calling thread alone.
    check(unsafe { libc::setns(net, libc::CLONE_NEWNET) })
}

/// Gives the calling process mounts of its own, with `sockets` where WireGuard's tools look.
fn own_mounts(sockets: &CString, places: &[CString]) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: the call takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: the target is a literal; the other pointers may be null when propagation changes.
    check(unsafe {
        libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
    })?;
    for place in places {
        // SAFETY: both paths are terminated strings that outlive the call.
        check(unsafe {
            libc::mount(sockets.as_ptr(), place.as_ptr(), none, libc::MS_BIND, none.cast())
        })?;
    }
    Ok(())
}

fn die_with_parent() -> io::Result<()> {
    // SAFETY: this option takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("paths have no zero byte")
}
