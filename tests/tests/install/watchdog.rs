//! systemd notices a daemon that does nothing any more.

use flowd_tests::wait;

use crate::gateway::Gateway;
use crate::operator::{UNIT, gaps, journal, property, read, ready};
use crate::watched::Watched;

/// Longer than the watchdog's patience.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

pub(crate) fn a_daemon_that_stands_still_is_replaced(gateway: &mut Gateway) {
    let known_gaps = gaps();
    let (watched, before) = Watched::begin(gateway);
    let pid = ready();
    let restarts: u32 = property("NRestarts").parse().expect("a number");
    read(&["systemctl", "kill", "--signal=STOP", "--kill-who=main", UNIT]);
    wait::until(PATIENCE, "systemd starts another one", || {
        property("NRestarts").parse() == Ok(restarts + 1)
    });
    assert_ne!(ready(), pid);
    assert!(journal(&[]).contains("Watchdog timeout"), "{}", journal(&["-n", "20"]));
    watched.end_whole(&before);
    assert_eq!(gaps(), known_gaps, "nothing is missing");
}
