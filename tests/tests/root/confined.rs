//! flowd as the packaged service runs it: a user of its own with three capabilities.

use flowd::flows::{Counters, EndReason, Stage, Verdict};
use flowd_common::counter::Direction;
use flowd_tests::{
    detach,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, udp},
    wait,
    wireguard::{Backend, backend},
};

use crate::{
    books::assert_balanced,
    enforcement::{STRICT, ends, lan_net},
};

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF of `include/uapi/linux/capability.h`.
const THREE: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// CAP_DAC_OVERRIDE there: wireguard-go's socket is root's.
const TO_ASK_WIREGUARD_GO: u64 = 1 << 1;

fn confined(net: &Topology) -> Site {
    let mut site = Site::new(net, &Settings::default());
    site.write("policy.toml", STRICT);
    site.confine();
    site
}

/// A line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn three_capabilities_suffice_to_count_to_enforce_and_to_go_on() {
    let net = lan_net();
    let site = confined(&net);
    let mut daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let status = daemon.status();
    let expected = match backend() {
        Backend::Kernel => THREE,
        Backend::Userspace => THREE | TO_ASK_WIREGUARD_GO,
    };
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(&status, set), 16), Ok(expected), "{set}");
    }
    assert!(field(&status, "Uid").split('\t').all(|uid| uid != "0"), "{status}");

    let [(near, far), _] = ends(&net);
    let allowed = udp::Pair::on_port(near, far, 5000);
    let denied = udp::Pair::on_port(near, far, 6000);
    let mut load = Load::default();
    for round in 1..=3 {
        load = load + allowed.exchange(&[100; 3]);
        denied.near.send(&[1; 10]).expect("it leaves the peer");
        wait::until_equal("what is allowed is counted once", &Load::both(load, load), || {
            let flows = ctl.flows(&["--dst-port", "5000"]);
            flows.iter().fold(Counters::default(), |sum, flow| sum + flow.total)
        });
        wait::until_equal("what is denied is counted too", &round, || {
            let flows = ctl.flows(&["--dst-port", "6000"]);
            assert!(flows.iter().all(|flow| flow.verdict == Verdict::Deny && flow.enforced));
            flows.iter().map(|flow| flow.total.packets()).sum::<u64>()
        });
        daemon.stop();
        daemon = site.start(&net.gateway);
    }
    let gaps = ctl.gaps(&[]).into_iter().filter(|gap| gap.stage != Stage::Drain);
    assert_eq!(gaps.map(|gap| gap.stage).collect::<Vec<_>>(), [], "nothing is missing");
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn three_capabilities_suffice_to_notice_what_others_do_and_to_detach() {
    let net = lan_net();
    let site = confined(&net);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    detach::programs(&net.gateway, "wg0", Direction::Ingress);
    ctl.ended_gap("detached");
    let [(near, far), _] = ends(&net);
    let load = udp::Pair::on_port(near, far, 5000).exchange(&[100; 3]);
    daemon.stop();
    let output = site.flowd(&net.gateway).arg("detach").output().expect("flowd is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let daemon = site.start(&net.gateway);
    let flow = ctl.one_flow(&["--dst-port", "5000"], Load::both(load, load));
    assert_eq!(flow.end_reason, Some(EndReason::Shutdown));
    daemon.stop();
}
