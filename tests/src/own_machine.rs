//! A machine that is the test's own, which the vm tier makes: no other test runs beside, and
//! nothing on it is of use to anybody.

use std::{env, io::Write as _, path::PathBuf};

/// What a test says before the machine restarts; who started the machine waits for it.
const RESTARTS: &str = "flowd-vm-restarts";

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
    // Past the test harness, which captures only what the print macros write.
    let mut stdout = std::io::stdout();
    write!(stdout, "\n{RESTARTS}\n").and_then(|()| stdout.flush()).expect("a console");
    // SAFETY: the call takes a number. It waits until the console has sent everything.
    unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
    if unwritten == Unwritten::Written {
        // SAFETY: the call takes nothing.
        unsafe { libc::sync() };
    }
    // SAFETY: the call takes a number, and does not return where it is permitted.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    panic!("the machine does not restart: {}", std::io::Error::last_os_error());
}
