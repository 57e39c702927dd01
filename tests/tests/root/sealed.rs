//! The sealed history of a gateway: keys that change, and what the daemon says of it.

use std::{env, fs, os::unix::process::ExitStatusExt as _, path::PathBuf};

use flowd::{
    seal::{DayState, Proof},
    wire::AuditPage,
};
use flowd_tests::{
    site::{Settings, Site},
    skip,
    topology::Topology,
    traffic::udp,
    wait,
};
use serde_json::Value;

use crate::{books::flowd_on, metrics::text, store::DAY_MS};

/// A key of somebody else.
const OTHER: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn a_key_that_changes_is_named_by_the_one_before_wherever_that_is_cut_off() {
    let Some(flowd) = env::var_os("FLOWD_FAILPOINTS_BIN").map(PathBuf::from) else {
        skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
    };
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let store = site.path("store").display().to_string();
    let keys = || -> Vec<Value> { ctl.json(&["keys", "show", "--store", &store]) };
    let first = ctl.key();
    let mut expected = 1;
    for (place, keys_more) in [
        ("key-made", 0),
        ("seal-half-written", 0),
        ("seal-written", 1),
        ("key-put", 1),
        ("seal-half-written:2", 1),
        ("seal-written:2", 1),
    ] {
        println!("at {place}");
        let mut rotate = net.gateway.command(flowd.with_file_name("flowctl-failpoints"));
        rotate.args(["keys", "rotate", "--store", &store]).env("FLOWD_TEST_KILL_AT", place);
        let output = rotate.output().expect("it starts");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{place}");
        // Goes on from what that one left.
        let output = ctl.run(&["keys", "rotate", "--store", &store]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        expected += keys_more + 1;
        let keys = keys();
        assert_eq!(keys.len(), expected, "{place}: {keys:#?}");
        assert!(keys[1..].iter().all(|key| key["is_named"] == true), "{place}: {keys:#?}");
        for key in [&first, keys[keys.len() - 1]["key"].as_str().expect("a key")] {
            let proof: Proof = ctl.json(&["verify", &store, "--key", key]);
            assert!(proof.is_good, "{place}: {proof:#?}");
        }
    }
    let last = keys().pop().expect("there are many");
    daemon.stop();
    let daemon = site.start(&net.gateway);
    wait::until_equal("the daemon signs with the newest", &last, || {
        keys().pop().expect("there are many")
    });
    daemon.stop();
}

#[test]
fn the_daemon_checks_its_history_while_it_goes_on_and_writes_that_down() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &Settings::default());
    if !site.use_failpoints() {
        skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
    }
    site.set_clock(0);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let flow = udp::Pair::new(ends.0, ends.1);
    let store = site.path("store").display().to_string();
    let key = ctl.key();
    flow.exchange(&[100; 3]);
    wait::until(wait::SOON, "it is recorded", || ctl.status().drain.records > 0);
    site.set_clock(DAY_MS);
    let proof = wait::until_some(2 * wait::SOON, "the day is sealed", || {
        flow.exchange(&[100]);
        let proof: Proof = ctl.json(&["verify", "--online", "--key", &key]);
        assert!(proof.is_good, "{proof:#?}");
        proof.days.iter().any(|day| day.state == DayState::Proven).then_some(proof)
    });
    let known = ["verify", "--online", "--key", &key, "--known", &proof.head];
    assert!(ctl.run(&known).status.success());
    // It says what the same check of the files says.
    let mut offline: Proof = ctl.json(&["verify", &store, "--key", &key]);
    let mut online: Proof = ctl.json(&["verify", "--online", "--key", &key]);
    for proof in [&mut offline, &mut online] {
        proof.days.retain(|day| day.state == DayState::Proven);
    }
    assert_eq!(online.days, offline.days);

    let wrong: &[&[&str]] = &[&["--key", OTHER], &["--key", &key, "--known", OTHER]];
    for wrong in wrong {
        let output = ctl.run(&[&["verify", "--online"], *wrong].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("WRONG: "), "{told}");
    }
    let faults = wait::until_some(wait::SOON, "both are in the audit log", || {
        let page: AuditPage = ctl.json(&["audit", "list", "--event", "history.verified"]);
        let of = |entry: &flowd::wire::AuditEntry| entry.details["faults"].as_u64();
        let faults: Vec<_> = page.entries.iter().filter_map(of).filter(|n| *n > 0).collect();
        (faults.len() == 2).then_some(page)
    });
    assert!(faults.entries.iter().all(|entry| entry.resource.as_deref() == Some("/v1/verify")));
    daemon.stop();
}

#[test]
fn a_key_that_cannot_be_read_is_told_until_it_can() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let path = site.path("store/keys/gateway.ed25519");
    let key = wait::until_some(wait::SOON, "there is one", || fs::read(&path).ok());
    assert_eq!(ctl.status().store.keeper_error, None);
    daemon.stop();
    fs::write(&path, "no key").expect("room");
    let daemon = site.start(&net.gateway);
    let status = wait::until_some(wait::SOON, "it is told", || {
        let status = ctl.status();
        status.store.keeper_error.is_some().then_some(status)
    });
    let error = status.store.keeper_error.expect("it was there");
    assert!(error.contains("has no key of flowd: restore it from a backup"), "{error}");
    let since = status.store.keeper_failing_since.expect("it has failed");
    assert!((status.started..=status.now).contains(&since), "{since}");
    let told = String::from_utf8_lossy(&ctl.run(&["status"]).stdout).into_owned();
    assert!(told.contains(&format!("Keeper FAILS {error}")), "{told}");
    assert!(text(&site).contains("\nflowd_keeper_failing 1\n"));
    fs::write(&path, key).expect("room");
    wait::until(3 * wait::SOON, "flowd tries again", || ctl.status().store.keeper_error.is_none());
    assert!(text(&site).contains("\nflowd_keeper_failing 0\n"));
    daemon.kill();
}
