//! The package leaves the machine.

use std::fs;
use std::path::Path;

use crate::gateway::Gateway;
use crate::installation::UPGRADE;
use crate::operator::{self, UNIT, flows, read, ready, run};
use crate::policy::{self, DENIED_PORT};

pub(crate) fn leaves_nothing_in_the_kernel_and_keeps_the_data(gateway: &mut Gateway) {
    assert!(programs() > 0 && filters() == 2 && is_pinned(), "there is something to leave");
    read(&["apt-get", "remove", "-y", "-q", "flowd"]);
    assert_eq!((programs(), filters(), is_pinned()), (0, 0, false));
    assert!(!run(&["systemctl", "is-active", UNIT]).status.success());
    assert!(!run(&["pgrep", "-x", "flowd"]).status.success());
    // What the policy denied gets through.
    gateway.pair(DENIED_PORT).exchange(&[100; 3]);
    assert!(segments() > 0);
    for file in ["/etc/flowd/flowd.toml", "/etc/flowd/policy.toml"] {
        assert!(Path::new(file).exists(), "{file}");
    }
}

pub(crate) fn installed_again_it_goes_on(gateway: &mut Gateway) {
    operator::install(UPGRADE);
    ready();
    let (id, total) = gateway.notes.flows[0];
    let found = flows(&[]).into_iter().find(|flow| flow.flow_id == id);
    assert_eq!(found.map(|flow| flow.total), Some(total));
    operator::attached();
    policy::in_force(gateway);
}

pub(crate) fn a_purge_takes_the_data_too(gateway: &mut Gateway) {
    assert!(segments() > 0);
    read(&["apt-get", "purge", "-y", "-q", "flowd"]);
    assert_eq!((programs(), filters(), is_pinned()), (0, 0, false));
    for directory in ["/var/lib/flowd", "/etc/flowd", "/run/flowd"] {
        assert!(!Path::new(directory).exists(), "{directory}");
    }
    assert!(!run(&["dpkg-query", "-W", "flowd"]).status.success());
    // It fails where there is none.
    let units = run(&["systemctl", "list-unit-files", "--no-legend", "flowd*"]);
    assert_eq!(String::from_utf8_lossy(&units.stdout), "");
    gateway.pair(DENIED_PORT).exchange(&[100; 3]);
}

/// Programs of flowd in the kernel.
fn programs() -> usize {
    read(&["bpftool", "prog", "show"]).matches(" name flowd_").count()
}

/// Filters of flowd on the interface.
fn filters() -> usize {
    let shown = ["ingress", "egress"].map(|way| read(&["tc", "filter", "show", "dev", "wg0", way]));
    shown.iter().map(|text| text.lines().filter(|line| line.contains("flowd")).count()).sum()
}

fn is_pinned() -> bool {
    fs::read_dir("/sys/fs/bpf/flowd").is_ok_and(|mut pins| pins.next().is_some())
}

fn segments() -> usize {
    fs::read_dir("/var/lib/flowd/segments").map_or(0, Iterator::count)
}
