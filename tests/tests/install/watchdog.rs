//! systemd notices a daemon that does nothing any more.

use std::fs;

use flowd_tests::wait;

use crate::gateway::Gateway;
use crate::operator::{UNIT, gaps, journal, property, read, ready};
use crate::watched::Watched;

/// As `systemctl edit` makes it: the unit's own patience is minutes.
const DROP_IN: &str = "/etc/systemd/system/flowd.service.d/override.conf";
const PATIENCE: &str = "[Service]\nWatchdogSec=20s\nRestartSec=0\n";

pub(crate) fn a_daemon_that_stands_still_is_replaced(gateway: &mut Gateway) {
    assert_ne!(property("WatchdogUSec"), "infinity", "the unit has a watchdog");
    let known_gaps = gaps();
    let (watched, before) = Watched::begin(gateway);
    fs::create_dir_all("/etc/systemd/system/flowd.service.d").expect("room");
    fs::write(DROP_IN, PATIENCE).expect("room");
    read(&["systemctl", "daemon-reload"]);
    read(&["systemctl", "restart", UNIT]);
    let pid = ready();
    let restarts: u32 = property("NRestarts").parse().expect("a number");
    read(&["systemctl", "kill", "--signal=STOP", "--kill-who=main", UNIT]);
    wait::until(wait::SOON, "systemd starts another one", || {
        property("NRestarts").parse() == Ok(restarts + 1)
    });
    assert_ne!(ready(), pid);
    assert!(journal(&[]).contains("Watchdog timeout"), "{}", journal(&["-n", "20"]));
    watched.end_whole(&before);
    assert_eq!(gaps(), known_gaps, "nothing is missing");
    fs::remove_file(DROP_IN).expect("it is ours");
    read(&["systemctl", "daemon-reload"]);
}
