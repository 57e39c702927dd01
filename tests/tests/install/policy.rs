//! A policy from its file, by `systemctl reload`.

use std::fs;

use flowd::{
    policy::Mode,
    wire::{PeerList, Policy},
};
use flowd_tests::wait;

use crate::gateway::{Gateway, PEER};
use crate::journal;
use crate::operator::{UNIT, json, property, read};
use crate::watched::Watched;

/// Of the gateway.
pub(crate) const ALLOWED_PORT: u16 = 5000;
pub(crate) const DENIED_PORT: u16 = 6000;

const FILE: &str = "/etc/flowd/policy.toml";
const NAMES: &str = "/etc/flowd/peers.toml";
const OTHER_PEER: &str = "phone-of-bob";

fn text() -> String {
    format!(
        "mode = \"enforce\"\ndefault = \"deny\"\n\n[[rules]]\nid = \"work\"\naction = \"allow\"\n\
         from = [\"{PEER}\"]\nto = [\"gateway\"]\nprotocols = [\"udp\"]\n\
         ports = [\"{ALLOWED_PORT}\"]\n"
    )
}

pub(crate) fn a_reload_reads_names_and_puts_a_policy_into_force(gateway: &mut Gateway) {
    let pid = property("MainPID");
    let policy: Policy = json(&["policy", "show"]);
    assert_eq!(policy.revision, 0, "nothing is in force before an operator says so");
    gateway.pair(DENIED_PORT).exchange(&[1]);

    let names =
        format!("[[peers]]\npublic_key = \"{}\"\nname = \"{OTHER_PEER}\"\n", gateway.absent());
    fs::write(NAMES, names).expect("room");
    fs::write(FILE, text()).expect("room");
    read(&["systemctl", "reload", UNIT]);
    wait::until_equal("the policy is in force", &(1, Mode::Enforce), || {
        let policy: Policy = json(&["policy", "show"]);
        (policy.revision, policy.mode)
    });
    wait::until(wait::SOON, "the other peer has its name", || {
        let peers: PeerList = json(&["peers"]);
        peers.peers.iter().any(|peer| peer.identity.name == OTHER_PEER)
    });
    assert_eq!(property("MainPID"), pid, "a reload starts nothing anew");
    in_force(gateway);
}

pub(crate) fn a_wrong_policy_is_refused_and_the_old_one_stays(gateway: &mut Gateway) {
    assert_eq!(journal::complaints(), [""; 0]);
    fs::write(FILE, "mode = \"enforce\"\ndefault = \"alow\"\n").expect("room");
    read(&["systemctl", "reload", UNIT]);
    wait::until(wait::SOON, "flowd complains of the policy", || {
        journal::complaints().iter().any(|line| line.contains(FILE))
    });
    let policy: Policy = json(&["policy", "show"]);
    assert_eq!((policy.revision, policy.mode), (1, Mode::Enforce));
    in_force(gateway);
    fs::write(FILE, text()).expect("room");
    read(&["systemctl", "reload", UNIT]);
}

/// What is allowed passes, what is denied does not, and both are recorded.
pub(crate) fn in_force(gateway: &Gateway) {
    let (watched, before) = Watched::begin(gateway);
    watched.end_whole(&before);
}
