//! flowd beside a WireGuard that runs in a container: in the network namespace of the interface, with
//! a BPF file system of its own and the three capabilities that it needs.

use std::{
    os::unix::net::UnixStream,
    process::{Child, Stdio},
};

use flowd_common::counter::Direction;
use flowd_tests::{
    detach,
    site::{Settings, Site, binary},
    skip,
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::operations;

/// Ends with the guard.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

#[test]
fn flowd_runs_beside_wireguard_in_its_network_namespace() {
    let net = Topology::new(1);
    // As `docs/operations.md` has it, with the places of this test.
    let command = operations::block("setpriv");
    if !["setpriv", "unshare", "mount"].iter().all(|program| operations::has(program)) {
        skip!("no setpriv, unshare or mount: util-linux is not here");
    }
    let site = Site::new(&net, &Settings::default());
    let config = site.path("flowd.toml");
    let text = site.config(&Settings::default());
    let pins = format!("pins = {:?}\n", site.path("bpf/flowd"));
    assert!(text.contains(&pins), "{text}");
    site.configure(&text.replace(&pins, ""));
    let flowd = binary("FLOWD_BIN", "flowd");
    let typed = command
        .replace("/etc/flowd/flowd.toml", &config.display().to_string())
        .replace(" flowd --config", &format!(" {} --config", flowd.display()))
        // The namespace is entered already.
        .replace("nsenter --net=/proc/$PID/ns/net ", "");
    assert!(!typed.contains("nsenter") && !typed.contains("/etc/flowd"), "{typed}");
    let log = site.path("sidecar.log");
    let file = std::fs::File::create(&log).expect("room");
    let mut shell = net.gateway.command("sh");
    let shell = shell.arg("-c").arg(format!("exec {typed}")).stdin(Stdio::null()).stderr(file);
    let mut running = Running(shell.spawn().expect("there is a shell"));
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait::until(wait::SOON, "flowd answers", || {
        let ended = running.0.try_wait().expect("our child");
        assert!(ended.is_none(), "{typed}: {}", said());
        UnixStream::connect(site.socket()).is_ok()
    });
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    assert!(ctl.status().policy.stays, "{}", said());
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[100; 3]);
    assert_eq!(ctl.summary().counters, Load::both(load, load));
    // It notices what others do with three capabilities, too.
    detach::programs(&net.gateway, "wg0", Direction::Ingress);
    wait::until(wait::SOON, "it is noticed", || !ctl.gaps(&["--stage", "detached"]).is_empty());
    assert!(!said().contains("ERROR"), "{}", said());
}
