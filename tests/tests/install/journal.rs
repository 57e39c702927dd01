//! What the daemon has told the journal, and systemd of the daemon.

use crate::gateway::Gateway;
use crate::operator::{journal, read};

/// What is so, and told, whenever flowd starts before wg-quick does, when wg-quick makes an interface
/// anew, and when the machine has restarted. A slow machine drains late, which misses nothing.
const EXPECTED: [&str; 6] = [
    "there is no WireGuard interface to watch yet",
    "a gap in the record stage=\"interface\" interface=\"wg0\"",
    "a gap in the record stage=\"attach\" interface=\"wg0\"",
    "a gap in the record stage=\"reboot\"",
    "reason=\"reboot\"",
    "a gap in the record stage=\"drain\"",
];

/// Behind a step that made flowd complain once: so what it complains of can be seen here.
pub(crate) fn has_told_no_trouble_but_the_wrong_policy(_: &mut Gateway) {
    let lines = complaints();
    assert!(!lines.is_empty(), "flowd complained of the wrong policy");
    let others: Vec<_> = lines.iter().filter(|line| !line.contains("policy.toml")).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_no_unit_failed();
}

pub(crate) fn has_told_no_trouble(_: &mut Gateway) {
    assert_eq!(complaints(), [""; 0]);
    assert_no_unit_failed();
}

fn assert_no_unit_failed() {
    assert_eq!(read(&["systemctl", "--failed", "--no-legend", "--plain"]), "");
}

/// Warnings and errors of flowd, and of systemd about it.
pub(crate) fn complaints() -> Vec<String> {
    let said = journal(&[]);
    let of_flowd = said.lines().filter(|line| {
        let level = line.split_whitespace().next().unwrap_or_default();
        ["WARN", "ERROR"].contains(&level) || line.contains("panicked")
    });
    let urgent = journal(&["-p", "warning"]);
    let all = of_flowd.chain(urgent.lines());
    let unexpected = all.filter(|line| !EXPECTED.iter().any(|expected| line.contains(expected)));
    unexpected.map(str::to_owned).collect()
}
