//! What an operator types.

use std::process::{Command, Output, Stdio};

use flowd::{
    flows::Stage,
    wire::{Flow, FlowPage, GapList, InterfaceStatus, Status},
};
use flowd_tests::wait;
use serde::de::DeserializeOwned;

/// A member of the group `flowd`, and nobody special.
pub(crate) const MEMBER: &str = "alice";
pub(crate) const STRANGER: &str = "mallory";
/// The unit.
pub(crate) const UNIT: &str = "flowd.service";

/// What a program did.
pub(crate) fn run(words: &[&str]) -> Output {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")))
}

/// What it printed; failure is a panic that shows it.
pub(crate) fn read(words: &[&str]) -> String {
    let output = run(words);
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{}: {}\n{stdout}{stderr}", words.join(" "), output.status);
    stdout
}

/// Runs flowctl as somebody.
pub(crate) fn flowctl_as(user: &str, args: &[&str]) -> Output {
    run(&[&["runuser", "-u", user, "--", "flowctl"], args].concat())
}

/// What flowctl prints for a member of the group.
pub(crate) fn flowctl(args: &[&str]) -> String {
    read(&[&["runuser", "-u", MEMBER, "--", "flowctl"], args].concat())
}

/// The same as JSON.
pub(crate) fn json<T: DeserializeOwned>(args: &[&str]) -> T {
    let text = flowctl(&[&["-o", "json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// `flowctl status`.
pub(crate) fn status() -> Status {
    json(&["status"])
}

/// The newest interface `wg0`, once flowd watches it.
pub(crate) fn attached() -> InterfaceStatus {
    wait::until_some(wait::SOON, "flowd watches wg0", || {
        let interfaces = status().interfaces.into_iter();
        let newest = interfaces.filter(|interface| interface.name == "wg0");
        let newest = newest.max_by_key(|interface| interface.since);
        newest.filter(|interface| interface.attached_by != "detached")
    })
}

/// The flows that pass a filter; there are not many here.
pub(crate) fn flows(filter: &[&str]) -> Vec<Flow> {
    let page: FlowPage = json(&[&["flows", "--limit", "200"], filter].concat());
    assert_eq!(page.next_cursor, None, "one page has them all");
    page.flows
}

/// The stages of all gaps, but not that a slow machine drained late, which misses nothing.
pub(crate) fn gaps() -> Vec<(Stage, Option<u64>)> {
    let gaps = json::<GapList>(&["gaps"]).gaps.into_iter();
    let gaps = gaps.map(|gap| (gap.stage, gap.packets));
    gaps.filter(|gap| *gap != (Stage::Drain, Some(0))).collect()
}

/// A property of flowd's unit, as systemd has it.
pub(crate) fn property(name: &str) -> String {
    read(&["systemctl", "show", "-P", name, UNIT]).trim().to_owned()
}

/// The daemon's process, once systemd says that it is ready.
pub(crate) fn ready() -> u32 {
    wait::until_some(2 * wait::SOON, "flowd is ready", || {
        let pid: u32 = property("MainPID").parse().expect("a number");
        (property("ActiveState") == "active" && pid != 0).then_some(pid)
    })
}

/// What the journal of this boot has of flowd.
pub(crate) fn journal(more: &[&str]) -> String {
    let words = ["journalctl", "-b", "--no-pager", "-o", "cat", "-u", UNIT];
    let output = run(&[&words[..], more].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Installs a package file; there is no network.
pub(crate) fn install(file: &str) {
    read(&["apt-get", "install", "-y", "-q", file]);
}
