//! `docs/operations.md`: what stands there is typed as it stands there.

use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use flowd_tests::{
    site::{Settings, Site, binary},
    skip,
    topology::Topology,
    traffic::udp,
    wait,
};

use crate::{books::flowd_on, examples::POLICY, metrics::with_listener};

const PAGE: &str = include_str!("../../../docs/operations.md");

/// Every block of the page: what it is marked as, and what it says.
fn blocks() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
        let body = lines.by_ref().take_while(|line| line.trim() != "```");
        let body: Vec<_> = body.map(|line| line.get(indent..).unwrap_or_default()).collect();
        found.push((kind.to_owned(), body.join("\n")));
    }
    found
}

/// The only block that says this.
pub(crate) fn block(part: &str) -> String {
    let mut found = blocks().into_iter().filter(|(_, body)| body.contains(part));
    let (_, body) = found.next().unwrap_or_else(|| panic!("no block says {part}"));
    assert!(found.next().is_none(), "two blocks say {part}");
    body
}

/// Whether the shell finds a program.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Types lines on the gateway, with the places of this test.
fn type_in(net: &Topology, site: &Site, dir: &Path, lines: &str) -> Output {
    let shown = |path: &Path| path.display().to_string();
    let typed = lines
        .replace("/etc/flowd/flowd.toml", &shown(&site.path("flowd.toml")))
        .replace("/run/flowd/flowd.sock", &shown(&site.socket()))
        .replace("/var/lib/flowd", &shown(&site.path("store")))
        .replace("/var/backups/flowd", &shown(&dir.join("backup")));
    // The programs under test go by their names.
    let programs = ["FLOWD_BIN", "FLOWCTL_BIN"].into_iter().zip(["flowd", "flowctl"]);
    for (variable, name) in programs {
        let link = dir.join("bin").join(name);
        if !link.exists() {
            fs::create_dir_all(dir.join("bin")).expect("room");
            let program = fs::canonicalize(binary(variable, name)).expect("it is built");
            std::os::unix::fs::symlink(program, link).expect("room");
        }
    }
    let path = env::var("PATH").unwrap_or_default();
    let mut shell: Command = net.gateway.command("sh");
    shell.arg("-ec").arg(&typed).current_dir(dir).env("FLOWD_SOCKET", site.socket());
    shell.env("PATH", format!("{}:{path}", shown(&dir.join("bin"))));
    shell.output().expect("there is a shell")
}

#[test]
fn every_command_of_the_operations_page_works() {
    for program in ["sqlite3", "curl"] {
        if !has(program) {
            skip!("no sqlite3 or no curl: run `cargo xtask setup --for test`");
        }
    }
    let net = Topology::new(1);
    let settings = Settings { active_timeout_ms: 500, ..Settings::default() };
    let site = Site::new(&net, &settings);
    let listener = "[metrics]\nlisten = \"127.0.0.1:9586\"\n";
    site.configure(&format!("{}{listener}", site.config(&settings)));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pairs: Vec<_> = (0..40).map(|_| udp::Pair::new(ends.0, ends.1)).collect();
    for pair in &pairs {
        pair.exchange(&[100]);
    }
    let dir = site.path("typed");
    fs::create_dir(&dir).expect("room");
    fs::write(dir.join("policy.toml"), POLICY).expect("room");
    ctl.apply(POLICY);
    wait::until(wait::SOON, "records are there", || ctl.status().store.last_record_id > 0);
    let typed = blocks().into_iter().filter(|(kind, _)| kind == "sh").map(|(_, lines)| lines);
    let typed: Vec<_> = typed.collect();
    assert!(typed.len() >= 6, "{typed:#?}");
    for lines in typed {
        let output = type_in(&net, &site, &dir, &lines);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {stderr}");
        assert!(!output.stdout.is_empty(), "{lines} says nothing");
    }

    // The way back to a copy.
    let before = ctl.summary().flows;
    daemon.stop();
    let output = type_in(&net, &site, &dir, "flowd --config /etc/flowd/flowd.toml detach");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(site.path("store"), site.path("lost")).expect("it is there");
    fs::rename(dir.join("backup"), site.path("store")).expect("it was made");
    fs::rename(site.path("lost/keys"), site.path("store/keys")).expect("the key was there");
    fs::remove_file(site.path("store/keys/head")).expect("it was, too");
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert!(before > 0 && ctl.summary().flows > 0, "the copy has records");
    assert!(!ctl.policy().text.is_empty(), "the copy has the policy");
    daemon.stop();
}

#[test]
fn every_message_on_the_operations_page_is_one() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let mut said = Vec::new();
    said.push(site.refused(&net.gateway));
    daemon.stop();
    said.push(site.flowctl(&net.gateway).failure(&["status"], 1));
    let text = site.config(&Settings { interfaces: &["lo"], ..Settings::default() });
    site.configure(&text);
    said.push(site.refused(&net.gateway));
    with_listener(&site, "");
    let other = net.gateway.run(|| TcpListener::bind("127.0.0.1:9586").expect("it is free"));
    said.push(site.refused(&net.gateway));
    drop(other);
    site.configure("[flows]\ntable_sise = 4096\n");
    said.push(site.refused(&net.gateway));
    let places = |line: String| {
        line.replace(&site.socket().display().to_string(), "/run/flowd/flowd.sock")
            .replace(&site.path("flowd.toml").display().to_string(), "/etc/flowd/flowd.toml")
    };
    let said: Vec<_> = said.into_iter().map(places).collect();
    let (_, behind) = PAGE.split_once("## Troubleshooting\n").expect("it has a heading");
    let (page, _) = behind.split_once("\n## ").expect("it is not the last one");
    // Long messages are broken where a line would be too long.
    let shown = page.split("```text\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let shown: Vec<_> = shown.map(|message| message.replace('\n', " ")).collect();
    assert_eq!(shown.len(), said.len());
    for message in &said {
        assert!(shown.contains(message), "{message}\nis not among\n{}", shown.join("\n"));
    }
}
