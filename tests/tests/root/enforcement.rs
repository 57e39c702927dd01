//! What a policy does to traffic through a real tunnel, seen from the far side.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use flowd::{
    flows::{Counters, EndReason, Initiator, Verdict},
    policy::Mode,
    wire::{Flow, PolicyReport},
};
use flowd_tests::{
    flowctl::Flowctl,
    machine,
    site::{Settings, Site},
    topology::{LAN_V4, LAN_V6, Topology},
    traffic::{End, Load, raw, tcp, udp},
    wait,
};

use crate::books::{assert_balanced, flowd_on};

/// peer0 may ask the LAN for what stands here, and nobody may anything else.
pub(crate) const STRICT: &str = r#"
mode = "enforce"
default = "deny"

[resources]
lan = ["10.20.0.0/24", "fd20::/64"]

[[rules]]
id = "open"
action = "allow"
from = ["peer0"]
to = ["resource:lan"]
protocols = ["tcp", "udp"]
ports = ["5000", "8000-8100"]

[[rules]]
id = "ping"
action = "allow"
from = ["group:test"]
to = ["resource:lan"]
protocols = ["icmp:8", "icmpv6:128"]
"#;

pub(crate) fn lan_net() -> Topology {
    let mut net = Topology::new(2);
    net.add_lan();
    net
}

fn lan(net: &Topology, ip: impl Into<IpAddr>) -> End<'_> {
    (net.lan.as_ref().expect("it has one"), ip.into())
}

/// The ends of peer0 and of the LAN host, IPv4 and IPv6.
pub(crate) fn ends(net: &Topology) -> [(End<'_>, End<'_>); 2] {
    let peer = &net.peers[0];
    [
        ((&peer.namespace, peer.v4.into()), lan(net, LAN_V4)),
        ((&peer.namespace, peer.v6.into()), lan(net, LAN_V6)),
    ]
}

/// Sends datagrams that must not arrive: one of an allowed flow that is sent behind them does.
fn send_in_vain(pair: &udp::Pair, payloads: &[usize], behind: &udp::Pair) -> Load {
    for payload in payloads {
        pair.near.send(&vec![1; *payload]).expect("it leaves the peer");
    }
    behind.send(&[1]);
    pair.far.set_nonblocking(true).expect("a socket");
    let arrived = pair.far.recv(&mut [0; 2_000]);
    assert_eq!(arrived.unwrap_err().kind(), ErrorKind::WouldBlock, "a denied datagram arrived");
    pair.far.set_nonblocking(false).expect("a socket");
    let ip = pair.near.local_addr().expect("bound").ip();
    payloads.iter().map(|payload| udp::datagram(ip, *payload)).fold(Load::default(), |a, b| a + b)
}

fn refused_by_silence(client: End<'_>, server: End<'_>, port: u16) {
    let address = SocketAddr::new(server.1, port);
    let listener = server.0.run(|| TcpListener::bind(address)).expect("the port is free");
    let connected =
        client.0.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(1_500)));
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::TimedOut);
    listener.set_nonblocking(true).expect("a socket");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn only(ctl: &Flowctl<'_>, filter: &[&str]) -> Flow {
    let flows = ctl.flows(filter);
    assert_eq!(flows.len(), 1, "{filter:?}: {flows:#?}");
    flows.into_iter().next().expect("one")
}

#[test]
fn what_is_allowed_works_and_what_is_denied_does_not_arrive() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let report = ctl.apply(STRICT);
    assert_eq!((report.revision, report.mode), (Some(1), Mode::Enforce));

    for (near, far) in ends(&net) {
        let marker = udp::Pair::on_port(near, far, 5000);
        let allowed = marker.exchange(&[100; 3]);
        let vain = udp::Pair::on_port(near, far, 6000);
        let denied = send_in_vain(&vain, &[50, 100, 150], &marker);
        let allowed = Load::both(allowed + udp::datagram(near.1, 1), allowed);
        let dst = far.1.to_string();
        let flow = ctl.one_flow(&["--dst", &dst, "--port", "5000"], allowed);
        assert_eq!((flow.verdict, flow.enforced), (Verdict::Allow, false));
        assert_eq!((flow.rule.as_deref(), flow.policy_revision), (Some("open"), 1));
        let flow =
            ctl.one_flow(&["--dst", &dst, "--port", "6000"], Load::both(denied, Load::default()));
        assert_eq!((flow.verdict, flow.enforced), (Verdict::Deny, true));
        assert_eq!((flow.rule, flow.policy_revision), (None, 1));
        assert_eq!(flow.initiator, Initiator::Peer);

        let mut connection = tcp::Connection::open(near, far, 8080);
        connection.transfer(100_000, 200_000);
        connection.close();
        assert_eq!(only(&ctl, &["--dst", &dst, "--port", "8080"]).rule.as_deref(), Some("open"));
        refused_by_silence(near, far, 9000);
        let flow = only(&ctl, &["--dst", &dst, "--port", "9000"]);
        assert_eq!((flow.verdict, flow.enforced), (Verdict::Deny, true));
        assert!(flow.total.rx_packets > 0 && flow.total.tx_packets == 0, "{flow:#?}");

        let pinged = raw::ping(near, far.1, 7, 3, 56);
        let protocol = if far.1.is_ipv4() { "icmp" } else { "icmpv6" };
        let flow =
            ctl.one_flow(&["--dst", &dst, "--protocol", protocol], Load::both(pinged, pinged));
        assert_eq!(flow.rule.as_deref(), Some("ping"));
    }
    // peer1 is in the group, and may ping only.
    let (near, far) = ((&net.peers[1].namespace, net.peers[1].v4.into()), lan(&net, LAN_V4));
    raw::ping(near, far.1, 9, 1, 56);
    refused_by_silence(near, far, 8081);

    // From the other side, nobody may open anything; an answer is no opening.
    let back = udp::Pair::on_port(lan(&net, LAN_V4), ends(&net)[0].0, 5000);
    let marker = udp::Pair::on_port(ends(&net)[0].0, lan(&net, LAN_V4), 8001);
    marker.exchange(&[1]);
    back.near.send(&[1; 80]).expect("it leaves the host");
    deliver(&marker.far, &marker.near);
    assert_nothing(&back.far);
    let flow = only(&ctl, &["--src", "10.20.0.2", "--protocol", "udp"]);
    assert_eq!((flow.verdict, flow.enforced), (Verdict::Deny, true));
    assert_eq!(flow.initiator, Initiator::Remote);
    assert_eq!(flow.total, Load::both(Load::default(), Load::of(1, 108)));

    let policy = ctl.policy();
    let hits: Vec<_> =
        policy.rules.iter().map(|rule| (rule.id.as_deref(), rule.hits.flows)).collect();
    assert_eq!(hits[1], (Some("ping"), 3), "{hits:?}");
    assert!(hits[0].1 >= 5 && hits[2].1 >= 5, "{hits:?}");
    assert_balanced(&ctl, "wg0");
    let summary = ctl.summary();
    let denied = ctl.flows(&["--verdict", "deny"]);
    assert_eq!(summary.denied.flows, denied.len() as u64);
    let bytes = denied.iter().map(|flow| flow.counters.bytes()).sum::<u64>();
    assert_eq!(summary.denied.bytes, bytes);
    daemon.stop();
}

fn deliver(from: &UdpSocket, to: &UdpSocket) {
    from.send(&[1]).expect("it leaves");
    to.recv(&mut [0; 16]).expect("it arrives");
}

fn assert_nothing(socket: &UdpSocket) {
    socket.set_nonblocking(true).expect("a socket");
    let got = socket.recv(&mut [0; 2_000]);
    assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock, "something arrived");
    socket.set_nonblocking(false).expect("a socket");
}

#[test]
fn what_is_only_observed_passes_and_says_so() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(&STRICT.replace("enforce", "observe"));
    let (near, far) = ends(&net)[0];
    let load = udp::Pair::on_port(near, far, 6000).exchange(&[100; 4]);
    let flow = ctl.one_flow(&["--port", "6000"], Load::both(load, load));
    assert_eq!((flow.verdict, flow.enforced, flow.rule), (Verdict::Deny, false, None));
    assert_eq!(ctl.interface("wg0").expect("attached").dropped, Counters::default());
    daemon.stop();
}

#[test]
fn a_swap_under_load_loses_nothing_allowed_and_stops_what_is_denied() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    let newly_denied = udp::Pair::on_port(near, far, 8050);
    let before = newly_denied.exchange(&[100; 5]);
    let mut doomed = tcp::Connection::open(near, far, 8060);
    doomed.transfer(1_000, 1_000);
    let mut bulk = tcp::Connection::open(near, far, 5000);
    let marker = udp::Pair::on_port(near, far, 5000);
    marker.exchange(&[1]);
    let narrow = STRICT.replace(r#""5000", "8000-8100""#, r#""5000""#);

    let report = std::thread::scope(|scope| {
        let transfer = scope.spawn(|| bulk.transfer(4_000_000, 12_000_000));
        let mut report = None;
        // Peers stay, rules change: each swap replaces everything in the kernel.
        for round in 0..6 {
            let text = if round % 2 == 0 { &narrow } else { STRICT };
            let answer = ctl.apply(text);
            report.get_or_insert(answer);
        }
        report.get_or_insert_with(|| unreachable!("there are rounds"));
        ctl.apply(&narrow);
        transfer.join().expect("every byte arrives");
        report.expect("there are rounds")
    });
    assert_eq!(report.cut_flows, 2, "{report:#?}");
    let mut ports: Vec<_> = report.cut.iter().map(|flow| flow.dst.port).collect();
    ports.sort();
    assert_eq!(ports, [Some(8050), Some(8060)]);
    assert!(report.cut.iter().all(|flow| flow.enforced && flow.rule.is_none()), "{report:#?}");

    let denied = send_in_vain(&newly_denied, &[100; 4], &marker);
    // Not even an answer to what came before goes back.
    newly_denied.far.send(&[2; 60]).expect("it leaves the host");
    deliver(&marker.far, &marker.near);
    assert_nothing(&newly_denied.near);
    doomed.client.write_all(&[1; 500]).expect("the kernel takes it");
    doomed.server.set_read_timeout(Some(Duration::from_millis(700))).expect("a socket");
    doomed.server.read(&mut [0; 1_000]).expect_err("nothing comes through");

    let flows = || ctl.flows(&["--port", "8050"]);
    wait::until(wait::SOON, "the cut flow and the denied one are told apart", || {
        flows().len() >= 2
    });
    let flows = flows();
    let allowed: Vec<_> = flows.iter().filter(|flow| flow.verdict == Verdict::Allow).collect();
    assert!(allowed.iter().all(|flow| flow.end_reason == Some(EndReason::Policy)), "{flows:#?}");
    let sum = |flows: &[&Flow]| flows.iter().fold(Counters::default(), |sum, f| sum + f.total);
    assert_eq!(sum(&allowed), Load::both(before, before));
    let dropped: Vec<_> = flows.iter().filter(|flow| flow.verdict == Verdict::Deny).collect();
    let answer = udp::datagram(near.1, 60);
    wait::until_equal("what was denied is counted", &Load::both(denied, answer), || {
        let flows = ctl.flows(&["--port", "8050", "--verdict", "deny"]);
        flows.iter().fold(Counters::default(), |sum, flow| sum + flow.total)
    });
    assert!(dropped.iter().all(|flow| flow.enforced && flow.initiator == Initiator::Peer));
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn only_flows_that_end_are_told() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    udp::Pair::on_port(near, far, 8050).exchange(&[100; 2]);
    let marker = udp::Pair::on_port(near, far, 5000);
    // First the host, in vain; then the peer opens it, which ends what was denied.
    let both_ways = udp::Pair::on_port(near, far, 8001);
    both_ways.far.send(&[1; 9]).expect("it leaves the host");
    marker.exchange(&[1]);
    assert_nothing(&both_ways.near);
    both_ways.exchange(&[1; 9]);
    let narrow = STRICT.replace("8000-8100", "8000-8049");
    let told = |report: &PolicyReport| -> Vec<_> {
        assert_eq!(report.cut_flows, report.cut.len() as u64);
        report.cut.iter().map(|flow| flow.dst.port).collect()
    };
    site.write("narrow.toml", &narrow);
    let path = site.path("narrow.toml");
    let check = || ctl.json::<PolicyReport>(&["policy", "check", path.to_str().expect("text")]);
    assert_eq!(told(&check()), [Some(8050)]);
    assert_eq!(told(&ctl.apply(&narrow)), [Some(8050)]);
    // It has ended, and no packet has followed.
    assert_eq!(told(&ctl.apply(STRICT)), []);
    assert_eq!(told(&check()), []);
    assert_eq!(told(&ctl.apply(&narrow)), []);
    daemon.stop();
}

#[test]
fn a_full_table_still_judges_every_packet() {
    let net = lan_net();
    let settings = Settings { table_size: 16, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    let marker = udp::Pair::on_port(near, far, 5000);
    marker.exchange(&[1]);
    let vain: Vec<_> = (0..60).map(|n| udp::Pair::on_port(near, far, 6000 + n)).collect();
    for pair in &vain {
        send_in_vain(pair, &[100], &marker);
    }
    // What finds no room is judged without memory: questions and answers pass.
    let late = udp::Pair::on_port(near, far, 8007);
    late.exchange(&[100; 3]);
    let denied = Load::of(60, 128);
    wait::until_equal("denied in flows and overflow", &denied.packets, || {
        let flows = ctl.flows(&["--verdict", "deny"]);
        flows.iter().map(|flow| flow.counters.rx_packets).sum()
    });
    let overflow = ctl.flows(&["--verdict", "deny"]);
    assert!(overflow.iter().any(|flow| flow.overflow && flow.enforced), "{overflow:#?}");
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn errors_about_allowed_flows_pass() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    // Nobody listens on this allowed port: the host says so, and the sender hears it.
    let socket = udp::bind(near, 0);
    socket.connect(SocketAddr::new(far.1, 8010)).expect("a route");
    socket.send(&[1; 30]).expect("it leaves");
    let refused = socket.recv(&mut [0; 16]).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let error = only(&ctl, &["--protocol", "icmp", "--dst", &near.1.to_string()]);
    assert_eq!((error.verdict, error.rule.as_deref()), (Verdict::Allow, Some("open")));
    daemon.stop();
}

/// Sends what must not arrive until it is told to stop, and says how many it sent.
fn pour_in_vain(pair: &udp::Pair, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    // WireGuard drops what it cannot encrypt in time.
    let pause = Duration::from_millis(machine::size(1, 10));
    while !stop.load(Ordering::Relaxed) {
        pair.near.send(&[1; 100]).expect("it leaves the peer");
        sent += 1;
        std::thread::sleep(pause);
    }
    sent
}

#[test]
fn a_restart_opens_no_hole_and_open_flows_go_on() {
    let net = lan_net();
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    let denied = udp::Pair::on_port(near, far, 6000);
    let allowed = udp::Pair::on_port(near, far, 5000);
    let mut connection = tcp::Connection::open(near, far, 8080);
    let mut exchanged = allowed.exchange(&[100; 3]);
    connection.transfer(10_000, 10_000);
    let stop = AtomicBool::new(false);
    let (sent, daemon) = std::thread::scope(|scope| {
        let pouring = scope.spawn(|| pour_in_vain(&denied, &stop));
        for round in 0..4 {
            if round % 2 == 0 {
                daemon.stop();
            } else {
                daemon.kill();
            }
            // Without a daemon the policy stays in force, and what it allows goes on: the far side
            // first, which could not open anything.
            for _ in 0..3 {
                deliver(&allowed.far, &allowed.near);
                deliver(&allowed.near, &allowed.far);
                exchanged = exchanged + udp::datagram(near.1, 1);
            }
            connection.transfer(5_000, 5_000);
            daemon = site.start(&net.gateway);
            site.flowctl(&net.gateway).attached("wg0");
            deliver(&allowed.far, &allowed.near);
            deliver(&allowed.near, &allowed.far);
            exchanged = exchanged + udp::datagram(near.1, 1);
            connection.transfer(5_000, 5_000);
            assert_eq!(ctl.policy().revision, 1);
        }
        stop.store(true, Ordering::Relaxed);
        (pouring.join().expect("it sends"), daemon)
    });
    assert_nothing(&denied.far);
    connection.close();
    // Every packet of either is in the records, over restarts and kills.
    let sum = |filter: &[&str]| {
        ctl.flows(filter).iter().fold(Counters::default(), |sum, flow| sum + flow.counters)
    };
    let load = Load { packets: sent, bytes: sent * 128 };
    wait::until_equal("what was denied is counted", &Load::both(load, Load::default()), || {
        sum(&["--port", "6000"])
    });
    wait::until_equal("what was allowed is counted", &Load::both(exchanged, exchanged), || {
        sum(&["--port", "5000"])
    });
    let flows = ctl.flows(&["--port", "6000"]);
    assert!(flows.iter().all(|flow| flow.verdict == Verdict::Deny && flow.enforced), "{flows:#?}");
    let flows = ctl.flows(&["--port", "5000"]);
    assert!(flows.iter().all(|flow| flow.verdict == Verdict::Allow), "{flows:#?}");
    assert!(flows.iter().all(|flow| flow.rule.as_deref() == Some("open")), "{flows:#?}");
    assert!(flows.iter().all(|flow| flow.initiator == Initiator::Peer), "{flows:#?}");
    daemon.stop();
}

#[test]
fn what_stays_without_a_daemon_does_what_the_policy_says_until_it_is_detached() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let (near, far) = ends(&net)[0];
    let denied = udp::Pair::on_port(near, far, 6000);
    ctl.apply(STRICT);
    let marker = udp::Pair::on_port(near, far, 5000);
    send_in_vain(&denied, &[1], &marker);
    daemon.stop();
    send_in_vain(&denied, &[1], &marker);

    let mut command = site.flowd(&net.gateway);
    let output = command.arg("detach").output().expect("flowd is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    denied.exchange(&[1]);

    let daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    let denied = udp::Pair::on_port(near, far, 6001);
    send_in_vain(&denied, &[1], &marker);
    let mut command = site.flowd(&net.gateway);
    let refused = flowd_tests::site::one_line_of_failure(
        &command.arg("detach").output().expect("flowd is built"),
        1,
    );
    assert!(refused.contains("stop it first"), "{refused}");
    ctl.apply(&STRICT.replace("enforce", "observe"));
    daemon.kill();
    denied.exchange(&[1]);
}

#[test]
fn a_connection_older_than_flowd_goes_on_where_either_side_may_open_it() {
    let net = lan_net();
    let (near, far) = ends(&net)[0];
    let mut allowed = tcp::Connection::open(near, far, 8080);
    let mut denied = tcp::Connection::open(near, far, 9090);
    let site = Site::new(&net, &Settings::default());
    site.write("policy.toml", STRICT);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    assert_eq!(ctl.policy().revision, 1, "the file is in force from the start");
    // The far side first: nobody has seen who opened it.
    allowed.transfer(0, 50_000);
    allowed.transfer(50_000, 0);
    let flow = only(&ctl, &["--port", "8080"]);
    assert_eq!((flow.initiator, flow.verdict), (Initiator::Unknown, Verdict::Allow));
    assert_eq!(flow.rule.as_deref(), Some("open"));
    denied.client.write_all(&[1; 500]).expect("the kernel takes it");
    denied.server.set_read_timeout(Some(Duration::from_millis(700))).expect("a socket");
    denied.server.read(&mut [0; 1_000]).expect_err("nothing comes through");
    let flow = only(&ctl, &["--port", "9090"]);
    assert_eq!((flow.initiator, flow.verdict), (Initiator::Unknown, Verdict::Deny));
    assert!(flow.enforced && flow.rule.is_none());
    daemon.stop();
}
