//! The socket: what it says of itself, and what `docs/api.md` says of it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use flowd_tests::{
    daemon::Daemon,
    site::{Settings, Site},
    skip,
    topology::{LAN_V4, Topology},
    traffic::{tcp, udp},
    wait,
};
use serde_json::Value;

use crate::{books::flowd_on, enforcement::lan_net, examples::POLICY, export::python};

const PAGE: &str = include_str!("../../../docs/api.md");
/// What the page calls its socket, and its flow.
const SOCKET: &str = "/run/flowd/flowd.sock";
const FLOW: &str = "01a1fc8a-a425-75a7-b299-ae8d734de1c4";
/// An example that goes on until it is interrupted.
const ENDLESS: &str = "timeout 5 ";

/// A gateway with a peer called as on the page, which has been to the network behind it.
fn served() -> (Topology, Site, Daemon) {
    let mut net = lan_net();
    net.peers[0].name = "alice-laptop".to_owned();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let near = (&net.peers[0].namespace, net.peers[0].v4.into());
    let far = (net.lan.as_ref().expect("it was added"), LAN_V4.into());
    for port in [443, 8443] {
        let mut connection = tcp::Connection::open(near, far, port);
        connection.transfer(10_000, 200_000);
        connection.close();
    }
    udp::Pair::new(near, far).exchange(&[100]);
    wait::until(wait::SOON, "two flows are recorded", || ctl.status().store.last_record_id >= 2);
    wait::until(wait::SOON, "the peer is known to be there", || {
        ctl.peer("alice-laptop").sessions.iter().any(|session| session.connected.is_some())
    });
    (net, site, daemon)
}

#[test]
fn the_socket_does_what_its_document_says() {
    let Some(python) = python() else {
        skip!("no Python with schemathesis: run `cargo xtask setup --for test`");
    };
    let (net, site, daemon) = served();
    let dir = site.path("schemathesis");
    fs::create_dir(&dir).expect("room");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/root/api.py");
    let mut command: Command = net.gateway.command(python);
    let output = command.arg(script).arg(site.socket()).arg(&dir).output().expect("it is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let answered: BTreeMap<String, BTreeMap<String, u64>> =
        serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(answered.len() >= 30, "{answered:#?}");
    for (asked, statuses) in &answered {
        let has = |status: &str| statuses.contains_key(status);
        // An operation has its method before the path; a path alone is asked by another method.
        let is_right = if asked.starts_with('/') {
            has("405") && statuses.len() == 1
        } else {
            has("200") && has("400")
        };
        assert!(is_right, "{asked}: {statuses:?}");
    }
    // It has put any number of policies into force, or tried to, and counts on.
    site.flowctl(&net.gateway).attached("wg0");
    daemon.stop();
}

/// A command of the page, and the answer that stands below it.
#[derive(Debug, Default)]
struct Example {
    command: String,
    /// `json`, `csv` or `text`.
    kind: String,
    answer: String,
}

fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        match kind {
            "sh" => all.push(Example { command: body, ..Example::default() }),
            _ => {
                let example = all.last_mut().expect("a command stands before its answer");
                assert_eq!(example.answer, "", "two answers to {}", example.command);
                (example.kind, example.answer) = (kind.to_owned(), body);
            }
        }
    }
    all
}

#[test]
fn every_example_on_the_page_works() {
    let (net, site, daemon) = served();
    let ctl = site.flowctl(&net.gateway);
    let flow = ctl.flows(&["--port", "443"])[0].flow_id.to_string();
    let dir = site.path("examples");
    fs::create_dir(&dir).expect("room");
    fs::write(dir.join("policy.toml"), POLICY).expect("room");
    let examples = examples();
    assert!(examples.len() >= 20, "{examples:#?}");
    for example in examples {
        let typed = example
            .command
            .replace(SOCKET, site.socket().to_str().expect("it is text"))
            .replace(FLOW, &flow)
            .replace(ENDLESS, "timeout 2 ")
            // What it says last is the status.
            .replace("curl ", "curl -sS -w '%{stderr}%{http_code}' ");
        let output = shell(&net, &dir, &typed);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if example.command.starts_with(ENDLESS) {
            assert_eq!((output.status.code(), &*stderr), (Some(124), ""), "{typed}");
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{typed}: {stderr}");
        let body = String::from_utf8(output.stdout).expect("it is text");
        let shown = format!("{typed}\n{body}\nis not as shown:\n{}", example.answer);
        assert_eq!(stderr, status(&example), "{shown}");
        match &*example.kind {
            "json" => {
                // One of several lines is shown.
                let answer = body.lines().next().filter(|_| typed.contains("ndjson"));
                let answer: Value = serde_json::from_str(answer.unwrap_or(&body)).expect("JSON");
                let expected = serde_json::from_str(&example.answer).expect("JSON");
                assert!(has(&answer, &expected), "{shown}");
            }
            "csv" => assert!(body.starts_with(&example.answer), "{shown}"),
            "text" => {
                let is_there = |name| body.lines().any(|line| line.starts_with(name));
                assert!(example.answer.lines().all(is_there), "{shown}");
            }
            other => panic!("{other:?}: {shown}"),
        }
    }
    daemon.stop();
}

/// The status that an answer of the page has: a refusal says it.
fn status(example: &Example) -> String {
    let refused = serde_json::from_str::<Value>(&example.answer)
        .ok()
        .filter(|answer| answer["type"].is_string())
        .map(|problem| problem["status"].to_string());
    refused.unwrap_or_else(|| "200".to_owned())
}

/// Whether an answer has every member that is shown, each of the same kind. What is shown as null
/// may be anything; of a list, each item that is shown is like one of the answer's.
fn has(answer: &Value, shown: &Value) -> bool {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => shown
            .iter()
            .all(|(name, shown)| answer.get(name).is_some_and(|answer| has(answer, shown))),
        (Value::Array(shown), Value::Array(answer)) => {
            shown.iter().all(|shown| answer.iter().any(|answer| has(answer, shown)))
        }
        (Value::Null, _)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}

/// Types a line on the gateway.
fn shell(net: &Topology, dir: &Path, line: &str) -> Output {
    let mut command: Command = net.gateway.command("sh");
    command.arg("-c").arg(line).current_dir(dir).output().expect("there is a shell")
}
