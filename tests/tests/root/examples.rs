//! Every example in flowctl's help, typed as it stands there, against a running daemon.

use std::{fs, path::Path, process::Command};

use flowd_tests::{
    namespace::Namespace,
    pty::Pty,
    site::{self, Settings, Site},
    topology::Topology,
    traffic::udp,
    wait,
};

use crate::books::flowd_on;

/// A policy for the examples that need a file of one.
pub(crate) const POLICY: &str = "default = \"allow\"\n[[rules]]\nid = \"no-smtp\"\n\
    action = \"deny\"\nfrom = [\"any\"]\nto = [\"any\"]\nprotocols = [\"tcp\"]\nports = [\"25\"]\n";
/// An example that goes on until it is interrupted.
const ENDLESS: &str = "flowctl watch";

/// The key that the help gives as an example.
const DOCUMENTED_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn every_example_in_the_help_works() {
    let mut net = Topology::new(1);
    // What the examples call their peer.
    net.peers[0].name = "alice-laptop".to_owned();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    udp::Pair::new(ends.0, ends.1).exchange(&[100]);
    wait::until(wait::SOON, "there is a flow", || !ctl.flows(&[]).is_empty());
    let dir = site.path("examples");
    fs::create_dir(&dir).expect("room");
    fs::write(dir.join("policy.toml"), POLICY).expect("room");

    let mut lines = Vec::new();
    examples(&net.gateway, &mut Vec::new(), &mut lines);
    assert!(lines.len() >= 20, "{lines:#?}");
    let flow = ctl.flows(&[])[0].flow_id.to_string();
    let key = ctl.key();
    for line in lines {
        if line.contains("--live") {
            watch(&net.gateway, &site, &line);
            continue;
        }
        let typed = line
            .replace("01a1fc8a-a425-75a7-b299-ae8d734de1c4", &flow)
            .replace("segments verify", &format!("segments verify --store {}", shown(&site)))
            .replace("audit verify", &format!("audit verify {}/audit.sqlite", shown(&site)))
            .replace("/mnt/copy", &shown(&site))
            .replace(DOCUMENTED_KEY, &key)
            .replace("keys show", &format!("keys show --store {}", shown(&site)))
            .replace("keys rotate", &format!("keys rotate --store {}", shown(&site)));
        let output = shell(&net.gateway, &site, &dir, &typed);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // What has no end is ended by `timeout`, which says 124.
        let expected = if line.starts_with(ENDLESS) { 124 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{typed}: {stderr}");
        // An export tells where the next one has to go on.
        let told = line.starts_with("flowctl export") && stderr.contains("the last one is record");
        assert!(told || stderr.is_empty(), "{typed}: {stderr}");
    }
    daemon.stop();
}

fn shown(site: &Site) -> String {
    site.path("store").display().to_string()
}

/// Types a line where `flowctl` is the one under test.
fn shell(namespace: &Namespace, site: &Site, dir: &Path, line: &str) -> std::process::Output {
    let endless = line.starts_with(ENDLESS);
    let program = site::binary("FLOWCTL_BIN", "flowctl");
    let limit = if endless { "timeout 2 " } else { "" };
    let line = line.replace("flowctl ", &format!("{limit}{} ", program.display()));
    let mut command: Command = namespace.command("sh");
    command.arg("-c").arg(line).current_dir(dir).env("FLOWD_SOCKET", site.socket());
    command.output().expect("there is a shell")
}

/// Types a line that fills the screen, and q when it has.
fn watch(namespace: &Namespace, site: &Site, line: &str) {
    let program = site::binary("FLOWCTL_BIN", "flowctl");
    let line = line.replace("flowctl ", &format!("{} ", program.display()));
    let mut command = namespace.command("sh");
    command.arg("-c").arg(&line).env("FLOWD_SOCKET", site.socket());
    let mut pty = Pty::start(&mut command, (80, 24));
    pty.until("flows", |text| text.contains("[FLOWS]") && text.contains("alice-laptop"));
    pty.send("q");
    assert_eq!(pty.ended().code(), Some(0), "{line}: {}", pty.text());
}

/// The examples of a command and of those below it.
fn examples(namespace: &Namespace, words: &mut Vec<String>, found: &mut Vec<String>) {
    let mut command = namespace.command(site::binary("FLOWCTL_BIN", "flowctl"));
    let output = command.args(&*words).arg("--help").output().expect("flowctl is built");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = help.lines().filter_map(|line| line.strip_prefix("Example: "));
    let own: Vec<_> = lines.map(str::to_owned).collect();
    let below: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // Descriptions may go on in lines that are indented further.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(words.is_empty() || !own.is_empty(), "{} has no example", words.join(" "));
    found.extend(own);
    for name in below {
        words.push(name);
        examples(namespace, words, found);
        words.pop();
    }
}
