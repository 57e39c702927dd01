//! Bad input: one line that says what, where and what to do; nothing half-done left behind.

use std::{
    fs::{self, File},
    os::unix::{net::UnixListener, process::CommandExt as _},
    process::Stdio,
};

use flowd_tests::{
    site::{Settings, Site, ended, one_line_of_failure},
    topology::Topology,
};

use crate::books::flowd_on;

#[test]
fn a_wrong_configuration_names_the_key() {
    let net = Topology::new(0);
    let site = Site::new(&net, &Settings::default());
    let good = site.config(&Settings::default());
    assert!(site.check_config(&net.gateway).status.success());
    for (right, wrong, named) in [
        ("table_size", "tabel_size", ["tabel_size", "table_size"]),
        ("[flows]", "[flow]", ["flow", "flows"]),
        ("table_size = 4096", "table_size = 1", ["table_size", "16"]),
        ("drain_interval_ms = 200", "drain_interval_ms = 1", ["drain_interval_ms", "100"]),
        ("gateway = \"test-gw\"", "gateway = 7", ["gateway", "string"]),
    ] {
        site.configure(&good.replace(right, wrong));
        for line in
            [one_line_of_failure(&site.check_config(&net.gateway), 1), site.refused(&net.gateway)]
        {
            for word in named.into_iter().chain(["flowd.toml"]) {
                assert!(line.contains(word), "{wrong}: {word} is missing: {line}");
            }
        }
        assert!(!site.path("store").exists(), "nothing is opened before all is valid");
    }
}

#[test]
fn a_device_that_is_no_wireguard_is_refused() {
    let net = Topology::new(0);
    let site = Site::new(&net, &Settings { interfaces: &["lo"], ..Settings::default() });
    let line = site.refused(&net.gateway);
    assert!(line.contains("lo") && line.contains("WireGuard"), "{line}");
}

#[test]
fn an_interface_that_is_not_there_yet_is_waited_for() {
    let mut net = Topology::with(&[("wg0", 1)]);
    net.lower("wg0");
    let site = Site::new(&net, &Settings { interfaces: &["wg0"], ..Settings::default() });
    let daemon = site.start(&net.gateway);
    assert!(daemon.log().contains("wg0"), "{}", daemon.log());
    net.raise("wg0");
    site.flowctl(&net.gateway).attached("wg0");
    daemon.stop();
}

#[test]
fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    // Dropped without being removed, as a crash leaves it.
    drop(UnixListener::bind(site.socket()).expect("the path is free"));
    let daemon = site.start(&net.gateway);
    let line = site.refused(&net.gateway);
    assert!(line.contains("another flowd already watches this network namespace"), "{line}");
    let line = site.refused(&net.peers[0].namespace);
    assert!(line.contains("in use by another flowd"), "{line}");
    let apart = Site::new(&net, &Settings::default());
    let text = apart.config(&Settings::default());
    let own = apart.socket().display().to_string();
    apart.configure(&text.replace(&own, &site.socket().display().to_string()));
    let line = apart.refused(&net.peers[0].namespace);
    assert!(line.contains("flowd.sock is in use by a running flowd"), "{line}");
    site.flowctl(&net.gateway).status();
    daemon.stop();
}

#[test]
fn a_segment_of_another_program_is_refused_and_left_alone() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    daemon.stop();
    let segments: Vec<_> = fs::read_dir(site.path("store/segments"))
        .expect("a store")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "sqlite"))
        .collect();
    let segment = segments.first().expect("a segment of today");
    // The application id stands at offset 68 of the header.
    let mut theirs = fs::read(segment).expect("readable");
    theirs[68..72].copy_from_slice(b"abcd");
    fs::write(segment, &theirs).expect("room");
    let line = site.refused(&net.gateway);
    assert!(line.contains(segment.to_str().expect("UTF-8")), "{line}");
    assert_eq!(fs::read(segment).expect("readable"), theirs);
}

#[test]
fn without_capabilities_one_line_says_which() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    let mut command = site.flowd(&net.gateway);
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(drop_capabilities) };
    let line = one_line_of_failure(&ended(&mut command), 1);
    assert!(line.contains("CAP_BPF"), "{line}");
}

/// Empties the bounding set, so that the program that is executed next has none, root or not.
fn drop_capabilities() -> std::io::Result<()> {
    for capability in 0_u64..64 {
        // SAFETY: this option takes numbers; unknown capabilities are refused, which is fine.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    Ok(())
}

#[test]
fn a_bad_query_is_told_in_one_line() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    for (args, code, named) in [
        (&["flows", "--ip", "10.0.0.300"][..], 2, "10.0.0.300"),
        (&["flows", "--since", "yesteryear"], 2, "yesteryear"),
        (&["flows", "--cursor", "nonsense"], 2, "cursor"),
        (&["summary", "--since", "today", "--until", "yesterday"], 2, "since"),
        (&["flow", "no-such-id"], 2, "no-such-id"),
    ] {
        let line = ctl.failure(args, code);
        assert!(line.contains(named), "{args:?}: {line}");
    }
    let usage = ctl.run(&["flows", "--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("--no-such-flag"));
    daemon.stop();
}

#[test]
fn a_missing_daemon_is_told_in_one_line() {
    let net = Topology::new(0);
    let site = Site::new(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let line = ctl.failure(&["status"], 1);
    assert!(line.contains("flowd.sock"), "{line}");
    // Nor is it a panic where nobody takes the line.
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let ended = ctl.command(&["status"]).stderr(full).status().expect("flowctl is built");
    assert_eq!(ended.code(), Some(1));
}

#[test]
fn a_closed_pipe_is_success() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let mut child = ctl
        .command(&["flows"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("flowctl is built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop();
}
