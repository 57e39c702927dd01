//! What is in `monitoring/`, held against promtool and against what a running flowd says.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use flowd_tests::{
    site::{Settings, Site},
    skip,
    topology::Topology,
    traffic::udp,
    wait,
};
use serde_json::Value;

use crate::metrics::{samples, text};

const RULES: &str = include_str!("../../../monitoring/flowd-alerts.yaml");
const DASHBOARD: &str = include_str!("../../../monitoring/flowd-dashboard.json");
const PAGES: [&str; 2] =
    [include_str!("../../../docs/operations.md"), include_str!("../../../docs/gaps.md")];
/// Names of an exporter of its own; `up` is Prometheus'.
const PREFIXES: [&str; 2] = ["flowd_", "process_"];
/// What a name in a text may be besides a metric: a label, or a file.
const NO_METRICS: [&str; 3] = ["flowd_ingress", "flowd_egress", "flowd_exporter"];

/// Debian's promtool, as `cargo xtask setup --for test` unpacks it.
fn promtool() -> Option<PathBuf> {
    let given = env::var_os("FLOWD_TEST_PROMTOOL").map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache/flowd/promtool/promtool"));
    given.or_else(home).filter(|program| program.is_file())
}

fn assert_success(output: &Output) {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

/// Every word of a text that looks like a metric's name, without what a histogram adds to it.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .filter(|word| !word.ends_with('_') && !NO_METRICS.contains(word))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[test]
fn what_flowd_says_is_as_promtool_likes_it_and_has_every_name() {
    let mut net = Topology::new(1);
    // What has to be escaped in a label.
    net.peers[0].name = "back\\slash \"quoted\" ü".to_owned();
    let site = Site::new(&net, &Settings::default());
    // The file of names is TOML, and takes them literally.
    let (name, key) = (&net.peers[0].name, &net.peers[0].keys.public);
    site.write("peers.toml", &format!("[[peers]]\npublic_key = \"{key}\"\nname = '{name}'\n"));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let peer = &net.peers[0];
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
        .exchange(&[100]);
    wait::until(wait::SOON, "the peer has been compared", || {
        ctl.peers().peers.iter().any(|peer| peer.coverage.is_some())
    });
    let text = text(&site);
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for family in &known {
        let has = |series: &String| series.starts_with(family);
        assert!(samples(&text).keys().any(has), "{family} has no sample: {text}");
    }
    let named = [RULES, DASHBOARD].into_iter().chain(PAGES).flat_map(names);
    for name in named {
        assert!(known.contains(&*name), "{name} is named and does not exist");
    }
    assert!(text.contains("back\\\\slash \\\"quoted\\\" ü"), "{text}");
    daemon.stop();
    let Some(promtool) = promtool() else {
        skip!("no promtool: run `cargo xtask setup --for test`");
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is a program");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("our child");
    assert_success(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{text}");
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    let Some(promtool) = promtool() else {
        skip!("no promtool: run `cargo xtask setup --for test`");
    };
    let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring");
    let check = |args: &[&str]| {
        let output = Command::new(&promtool).args(args).current_dir(&monitoring).output();
        assert_success(&output.expect("it is a program"));
    };
    check(&["check", "rules", "flowd-alerts.yaml"]);
    check(&["test", "rules", "flowd-alerts-test.yaml"]);
    let tests = fs::read_to_string(monitoring.join("flowd-alerts-test.yaml")).expect("it is there");
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        let tested = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&format!("{tested}\n")), "{alert} fires in no test");
        assert!(tests.contains(&format!("{tested} []\n")), "{alert} is quiet in no test");
    }
}

/// Every `expr` of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("expr", Value::String(text)) => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn prometheus_reads_every_expression_of_the_dashboard() {
    let Some(promtool) = promtool() else {
        skip!("no promtool: run `cargo xtask setup --for test`");
    };
    let mut found = Vec::new();
    expressions(&serde_json::from_str(DASHBOARD).expect("it is JSON"), &mut found);
    assert!(found.len() > 10, "{found:?}");
    let rules: Vec<Value> = found
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            serde_json::json!({ "record": format!("panel:{number}"), "expr": expression })
        })
        .collect();
    let group = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules.yaml");
    // JSON is YAML.
    fs::write(&file, group.to_string()).expect("room");
    let output = Command::new(promtool).args(["check", "rules"]).arg(&file).output();
    assert_success(&output.expect("it is a program"));
}
