//! A machine that is the test's own, which the vm tier makes: no other test runs beside, and
//! nothing on it is of use to anybody.

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

/// What a test says before the machine restarts; who started the machine waits for it.
const RESTARTS: &str = "flowd-vm-restarts";
/// What a program says that is started by systemd and not by our own first process.
const IS_UP: &str = "flowd-vm-up";
/// The same, in front of its exit code.
const EXIT: &str = "flowd-vm-exit:";

/// Whether there is one.
pub fn is_given() -> bool {
    env::var_os("FLOWD_TEST_OWN_MACHINE").is_some()
}

/// The directory that outlives a restart, after which the same tests run again.
pub fn disk() -> Option<PathBuf> {
    env::var_os("FLOWD_TEST_DISK").filter(|_| is_given()).map(PathBuf::from)
}

/// What becomes of files that are not on the disk yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// They are written first, as `reboot -f` does.
    Written,
    /// They are lost, as when the power fails.
    Lost,
}

/// Restarts the machine, whatever runs on it.
pub fn restart(unwritten: Unwritten) -> ! {
    assert!(is_given(), "only a machine of the test's own is restarted");
    say(RESTARTS);
    if unwritten == Unwritten::Written {
        // SAFETY: the call takes nothing.
        unsafe { libc::sync() };
    }
    // SAFETY: the call takes a number, and does not return where it is permitted.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    panic!("the machine does not restart: {}", std::io::Error::last_os_error());
}

/// Restarts a machine that has systemd, in order.
pub fn reboot() -> ! {
    assert!(is_given(), "only a machine of the test's own is restarted");
    say(RESTARTS);
    let_systemd_reach("reboot.target")
}

/// Tells that systemd has started the machine.
pub fn came_up() {
    say(IS_UP);
}

/// Tells how a program of systemd's ended, and switches its machine off.
pub fn end(code: u8) -> ! {
    assert!(is_given(), "only a machine of the test's own is switched off");
    say(&format!("{EXIT} {code}"));
    let_systemd_reach("poweroff.target")
}

/// As `systemctl reboot` does, which asks for a login manager first. Systemd ends this process too.
fn let_systemd_reach(target: &str) -> ! {
    let mut start = Command::new("systemctl");
    start.args(["--no-block", "--job-mode=replace-irreversibly", "start", target]);
    let done = start.stdin(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "systemctl starts {target}");
    loop {
        thread::park();
    }
}

/// A line on the console, past the test harness, which captures only what the print macros write.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    write!(stdout, "\n{line}\n").and_then(|()| stdout.flush()).expect("a console");
    // SAFETY: the call takes a number. It waits until the console has sent everything.
    unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
}
