//! The package gets onto the machine.

use crate::gateway::Gateway;
use crate::operator::{self, MEMBER, STRANGER, property, read, ready};

/// The packages that the machine is given.
pub(crate) const PACKAGE: &str = "/srv/load/flowd.deb";
pub(crate) const UPGRADE: &str = "/srv/load/upgrade.deb";

/// Before there is any WireGuard interface.
pub(crate) fn needs_no_network_and_starts(_: &mut Gateway) {
    operator::install(PACKAGE);
    assert_eq!(installed(), ("install ok installed".to_owned(), version_of(PACKAGE)));
    assert_eq!(read(&["dpkg", "--verify", "flowd"]), "", "no file differs from the package");
    read(&["systemctl", "enable", "--now", operator::UNIT]);
    ready();
    assert_eq!(property("Result"), "success");
    assert_eq!(property("NRestarts"), "0");
    read(&["useradd", "--create-home", "--groups", "flowd", MEMBER]);
    read(&["useradd", "--create-home", STRANGER]);
}

/// What dpkg says of the package: its status and its version.
pub(crate) fn installed() -> (String, String) {
    let text = read(&["dpkg-query", "-W", "-f", "${Status}\n${Version}", "flowd"]);
    let (status, version) = text.split_once('\n').expect("two lines");
    (status.to_owned(), version.to_owned())
}

/// The version in a package file.
pub(crate) fn version_of(file: &str) -> String {
    read(&["dpkg-deb", "-f", file, "Version"]).trim().to_owned()
}
