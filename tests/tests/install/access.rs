//! Who may ask.

use flowd_tests::site::one_line_of_failure;

use crate::gateway::Gateway;
use crate::installation;
use crate::operator::{self, MEMBER, STRANGER, UNIT, flowctl_as, property, read, ready};
use crate::watched::Watched;

pub(crate) fn a_member_of_the_group_asks(_: &mut Gateway) {
    let said = flowctl_as(MEMBER, &["status"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("wg0"), "{said:?}");
    let said = flowctl_as(MEMBER, &["peers"]);
    assert!(said.status.success(), "{said:?}");
}

pub(crate) fn a_stranger_is_refused_in_one_line(_: &mut Gateway) {
    let line = one_line_of_failure(&flowctl_as(STRANGER, &["status"]), 1);
    for word in ["/run/flowd/flowd.sock", "group"] {
        assert!(line.contains(word), "{line}");
    }
}

/// And the policy holds while there is none.
pub(crate) fn the_socket_starts_the_daemon(gateway: &mut Gateway) {
    let (watched, before) = Watched::begin(gateway);
    let pid = ready();
    read(&["systemctl", "stop", UNIT]);
    assert_eq!(property("ActiveState"), "inactive");
    assert_eq!(operator::status().version, program_version());
    assert_ne!(ready(), pid);
    watched.end_whole(&before);
    assert_eq!(installation::installed().0, "install ok installed");
}

/// In `flowctl 0.1.0`.
fn program_version() -> String {
    let text = read(&["flowctl", "--version"]);
    text.split_whitespace().nth(1).expect("a version").to_owned()
}
