//! Queries over what is recorded and what is open, asked as an operator asks.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use flowd::wire::{Flow, FlowPage, FlowState, Series, Top};
use flowd_tests::{
    site::{self, Settings},
    topology::{Peer, Topology},
    traffic::{Load, udp},
    wait,
};

use crate::books::flowd_on;

fn pair(net: &Topology, peer: &Peer) -> udp::Pair {
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
}

#[test]
fn the_same_question_has_the_same_answer_everywhere() {
    let net = Topology::new(2);
    let settings = Settings { active_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let pairs: Vec<_> =
        net.peers.iter().flat_map(|peer| [pair(&net, peer), pair(&net, peer)]).collect();
    // Each does more than the one before it.
    let mut sent = vec![Load::default(); pairs.len()];
    wait::until(wait::SOON, "records of flows that go on", || {
        for (index, pair) in pairs.iter().enumerate() {
            sent[index] = sent[index] + pair.exchange(&vec![200; index + 1]);
        }
        ctl.flows(&["--protocol", "udp"]).iter().filter(|flow| flow.records > 2).count() == 4
    });
    let all = sent.iter().fold(Load::default(), |sum, load| sum + *load);
    wait::until_equal("every packet is counted", &Load::both(all, all), || {
        ctl.top(&["--protocol", "udp"]).total.counters
    });
    let bytes = |index: usize| Load::both(sent[index], sent[index]).bytes();
    let peers: Vec<_> = net.peers.iter().map(|peer| peer.name.as_str()).collect();
    let (large, user) = (bytes(2).to_string(), format!("{}@example.com", peers[1]));
    let filters: [(&[&str], usize); 8] = [
        (&["--protocol", "udp"], 4),
        (&["--protocol", "udp", "--peer", peers[0]], 2),
        (&["--protocol", "udp", "--user", &user], 2),
        (&["--protocol", "udp", "--interface", "wg0", "--initiator", "peer"], 4),
        (&["--protocol", "udp", "--initiator", "remote"], 0),
        (&["--protocol", "udp", "--min-bytes", &large], 2),
        (&["--protocol", "udp", "--state", "open", "--since", "-1h"], 4),
        (&["--protocol", "udp", "--since", "yesterday", "--until", "-1h"], 0),
    ];
    for (filter, flows) in filters {
        let list = ctl.flows(filter);
        assert_eq!(list.len(), flows, "{filter:?}");
        let sum = list.iter().map(|flow| flow.counters.bytes()).sum::<u64>();
        let top: Top =
            ctl.json(&[&["top", "--by", "peer,dst_port", "--limit", "1"], filter].concat());
        assert_eq!((top.total.flows, top.total.bytes), (flows as u64, sum), "{filter:?}");
        let rows = top.rows.iter().map(|row| row.traffic.bytes).sum::<u64>();
        assert_eq!(rows + top.rest.bytes, sum, "{filter:?}");
        for by in [&[][..], &["--by", "peer", "--limit", "1"]] {
            let series: Series = ctl.json(&[&["series", "--step", "1m"], by, filter].concat());
            assert_eq!((series.total.flows, series.total.bytes), (flows as u64, sum), "{filter:?}");
            let points = series.points.iter().map(|point| point.traffic.bytes).sum::<u64>();
            let lines = series.lines.iter().chain(&series.rest);
            let lines = lines.map(|line| line.total.bytes).sum::<u64>();
            assert_eq!(points, sum, "{filter:?}");
            assert!(by.is_empty() || lines == sum, "{filter:?}: {series:#?}");
        }
    }
    let by_bytes = |order: &str| -> Vec<u64> {
        let args = ["flows", "--protocol", "udp", "--sort", "bytes", "--order", order];
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut args = [&args[..], &["--limit", "3"]].concat();
            args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
            let page: FlowPage = ctl.json(&args);
            found.extend(page.flows.iter().map(|flow| flow.counters.bytes()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return found;
            }
        }
    };
    assert_eq!(by_bytes("desc"), [bytes(3), bytes(2), bytes(1), bytes(0)]);
    assert_eq!(by_bytes("asc"), [bytes(0), bytes(1), bytes(2), bytes(3)]);
    let told = ctl.failure(&["flows", "--since", "soon"], 2);
    assert!(told.starts_with("flowctl: `--since` is `soon`; it must be RFC 3339"), "{told}");
    let told = ctl.failure(&["flows", "--src-port", "https"], 2);
    assert_eq!(told, "flowctl: `src_port` is `https`; it must be a number from 0 to 65535");
    daemon.stop();
}

/// Ends with the test.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

#[test]
fn flows_are_followed_as_they_begin_move_something_and_end() {
    let net = Topology::new(1);
    let settings = Settings { idle_timeout_ms: 3000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let mut command = ctl.command(&["flows", "--follow", "--protocol", "udp", "-o", "jsonl"]);
    let mut child = Following(command.stdout(Stdio::piped()).spawn().expect("flowctl is built"));
    let stdout = BufReader::new(child.0.stdout.take().expect("it is piped"));
    let (lines, told) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let flow: Flow = serde_json::from_str(&line).expect("a flow a line");
            if lines.send(flow).is_err() {
                return;
            }
        }
    });
    let next = |what: &str| {
        told.recv_timeout(wait::SOON).unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let pair = pair(&net, &net.peers[0]);
    let mut sent = pair.exchange(&[100]);
    let until = |what: &str, expected: Load| loop {
        let flow = next(what);
        if flow.total == Load::both(expected, expected) {
            return flow;
        }
    };
    let begun = until("it begins", sent);
    sent = sent + pair.exchange(&[100; 3]);
    let moved = until("it moves something", sent);
    assert_eq!((moved.flow_id, moved.state), (begun.flow_id, FlowState::Open));
    let ended = next("it ends");
    assert_eq!((ended.flow_id, ended.state), (begun.flow_id, FlowState::Closed));
    assert_eq!(ended.total, Load::both(sent, sent));
    drop(child);
    daemon.stop();
}

#[test]
fn a_shell_completes_what_the_daemon_knows() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(
        "default = \"allow\"\n[[rules]]\nid = \"no-smtp\"\naction = \"deny\"\nfrom = [\"any\"]\n\
         to = [\"any\"]\nprotocols = [\"tcp\"]\nports = [\"25\"]\n",
    );
    let completed = |line: &str| -> Vec<String> {
        let words: Vec<_> = line.split(' ').collect();
        let mut command = net.gateway.command(site::binary("FLOWCTL_BIN", "flowctl"));
        let output = command
            .env("FLOWD_SOCKET", site.socket())
            // As the script of `flowctl completion bash` asks.
            .envs([("COMPLETE", "bash"), ("_CLAP_IFS", "\n"), ("_CLAP_COMPLETE_COMP_TYPE", "9")])
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .arg("--")
            .args(&words)
            .output()
            .expect("flowctl is built");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    };
    let names: Vec<_> = net.peers.iter().map(|peer| peer.name.clone()).collect();
    assert_eq!(completed("flowctl flows --peer "), names);
    assert_eq!(completed("flowctl peer p"), names);
    assert_eq!(completed("flowctl top --rule no"), ["no-smtp", "none"]);
    assert_eq!(completed("flowctl series --interface "), ["wg0"]);
    assert_eq!(completed("flowctl flows --verdict "), ["allow", "deny"]);
    assert_eq!(completed("flowctl seri"), ["series"]);
    daemon.stop();
    assert_eq!(completed("flowctl flows --peer "), Vec::<String>::new(), "nobody is there to ask");
}
