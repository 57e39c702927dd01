//! What the daemon may do, as the kernel has it.

use std::collections::BTreeSet;
use std::fs;

use crate::gateway::{CONFIGURATION, Gateway};
use crate::operator::{STRANGER, property, read, ready, run};

/// Bits of `include/uapi/linux/capability.h`: `CAP_NET_ADMIN`, `CAP_PERFMON`, `CAP_BPF`.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

pub(crate) fn runs_as_its_own_user_with_three_capabilities(_: &mut Gateway) {
    assert_eq!(property("User"), "flowd");
    for set in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        let words = property(set);
        let words: BTreeSet<&str> = words.split_whitespace().collect();
        assert_eq!(words, BTreeSet::from(["cap_bpf", "cap_net_admin", "cap_perfmon"]), "{set}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", ready())).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(u64::from_str_radix(field(set), 16), Ok(CAPABILITIES), "{set}");
    }
    let id = |option: &str| read(&["id", option, "flowd"]).trim().to_owned();
    for (name, id) in [("Uid", id("-u")), ("Gid", id("-g"))] {
        let ids: BTreeSet<&str> = field(name).split_whitespace().collect();
        assert_eq!(ids, BTreeSet::from([id.as_str()]), "{name}");
        assert_ne!(id, "0", "{name}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "system calls are filtered");
}

pub(crate) fn keeps_what_it_has_to_itself(_: &mut Gateway) {
    let socket = read(&["stat", "-c", "%A %G", "/run/flowd/flowd.sock"]);
    assert_eq!(socket.trim(), "srw-rw---- flowd");
    // The daemon's user reads no private key, and nobody else reads what the daemon knows.
    for (user, file) in [("flowd", CONFIGURATION), (STRANGER, "/var/lib/flowd/segments")] {
        read(&["ls", file]);
        let seen = run(&["runuser", "-u", user, "--", "ls", file]);
        assert!(!seen.status.success(), "{user} sees {file}");
    }
}
