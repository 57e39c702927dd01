//! `flowctl top --live` on a terminal, used by hand.

use std::{env, os::unix::process::ExitStatusExt as _, path::PathBuf, process::Command};

use flowd::{flows::Counters, wire::Rates};
use flowd_tests::{
    flowctl::Flowctl,
    http,
    pty::Pty,
    site::{self, Settings},
    skip,
    topology::{Peer, Topology},
    traffic::{Load, steady::Steady, udp},
    wait,
};

use crate::books::flowd_on;

/// The oldest size there is.
const USUAL: (u16, u16) = (80, 24);
/// The port that each peer talks to; no other port contains these digits.
const PORTS: [u16; 2] = [7001, 7002];

fn pair(net: &Topology, peer: &Peer, port: u16) -> udp::Pair {
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    udp::Pair::on_port(ends.0, ends.1, port)
}

fn traffic(net: &Topology) -> Steady {
    Steady::begin(net.peers.iter().zip(PORTS).map(|(peer, port)| pair(net, peer, port)).collect())
}

/// The line of the flow to a port.
fn row(text: &str, port: u16) -> Option<String> {
    let end = format!(":{port} ");
    text.lines().find(|line| line.contains(&end)).map(str::to_owned)
}

fn live(ctl: &Flowctl<'_>, more: &[&str]) -> Command {
    ctl.command(&[&["top", "--live", "--color", "never"], more].concat())
}

fn has_both(text: &str) -> bool {
    PORTS.iter().all(|port| row(text, *port).is_some())
}

/// Nothing of the view is left, neither on the screen nor in how the terminal treats keys.
fn assert_left(pty: &Pty, modes: &([u32; 4], Vec<u8>), when: &str) {
    pty.until(&format!("the screen is left {when}"), |_| {
        !pty.look(vt100::Screen::alternate_screen)
    });
    assert_eq!(pty.modes(), *modes, "{when}");
    assert!(!pty.look(vt100::Screen::hide_cursor), "{when}");
}

#[test]
fn what_moves_is_found_sorted_and_told_in_detail() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let _traffic = traffic(&net);
    let names: Vec<_> = net.peers.iter().map(|peer| peer.name.as_str()).collect();

    let mut pty = Pty::start(&mut live(&ctl, &["--protocol", "udp"]), USUAL);
    let moving = |line: String| {
        let columns: Vec<_> = line.split_whitespace().collect();
        // Numbers and units; nothing is said before the second look, and 0 B of what is quiet.
        columns.contains(&"kB") || columns.contains(&"MB")
    };
    let text = pty.until("both flows move", |text| {
        PORTS.iter().all(|port| row(text, *port).is_some_and(moving))
    });
    for (name, port) in names.iter().zip(PORTS) {
        let row = row(&text, port).expect("it was there");
        assert!(row.contains(name) && row.contains("allow"), "{row}");
    }

    pty.send("/70");
    pty.send("01");
    let found = |text: &str| row(text, PORTS[0]).is_some() && row(text, PORTS[1]).is_none();
    let text = pty.until("the text finds one of them", found);
    assert!(text.contains("/7001: 1 found in"), "{text}");
    pty.send("\x1b");
    pty.until("Esc clears the text", has_both);

    pty.send("\t");
    let text = pty.until("the peers", |text| text.contains("flows [PEERS]"));
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
    pty.send(&format!("/{}\r\r", names[1]));
    let text = pty.until("the flows of the second", |text| {
        text.contains(&format!("only {}", names[1])) && row(text, PORTS[1]).is_some()
    });
    assert!(row(&text, PORTS[0]).is_none(), "{text}");
    pty.send("\x1b");
    pty.until("the peers again", |text| text.contains("flows [PEERS]"));
    // Where Esc and the next key arrive together, as here, the one does not swallow the other.
    pty.send("j\x1b\t");
    pty.until("all flows again", has_both);

    pty.send("/7002\rj\r");
    let text = pty.until("the flow in detail", |text| text.contains("Destination"));
    assert!(text.contains("Connection") && text.contains(":7002"), "{text}");
    pty.send("\x1b");
    let text = pty.until("the list again", |text| row(text, PORTS[1]).is_some());
    assert!(row(&text, PORTS[1]).is_some_and(|row| row.starts_with("> ")), "{text}");
    pty.send("\x1b");

    for size in [(60, 20), (40, 10), (120, 40)] {
        pty.resize(size);
        let last = usize::from(size.1) - 1;
        let text = pty.until("as large as the terminal", |text| {
            has_both(text) && text.lines().nth(last).is_some_and(|line| line.starts_with("q quit"))
        });
        assert!(text.lines().count() <= usize::from(size.1), "{text}");
    }
    pty.send("?");
    pty.until("the keys", |text| text.contains("Ctrl-Z"));
    pty.send("q");
    pty.until("any key ends the help", has_both);
    pty.send("q");
    assert_eq!(pty.ended().code(), Some(0), "{}", pty.text());
    daemon.stop();
}

#[test]
fn looks_tell_every_byte_of_a_flow_once() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let look = || http::get(&site.socket(), "/v1/rates?protocol=udp&dst_port=7001").json::<Rates>();
    let pair = pair(&net, &net.peers[0], PORTS[0]);
    pair.exchange(&[100; 3]);
    wait::until(wait::SOON, "a first look", || look().open_flows == 1);
    wait::until(wait::SOON, "the flow is quiet", || look().moved.packets() == 0);
    let mut told = Counters::default();
    let mut sent = Load::default();
    for payload in [200, 300] {
        sent = sent + pair.exchange(&[payload; 5]);
        wait::until_equal("what was sent is told", &Load::both(sent, sent), || {
            let rates = look();
            assert!(rates.interval_ms.is_some(), "{rates:?}");
            assert_eq!(rates.moving_flows, u64::from(rates.moved.packets() > 0));
            assert_eq!((rates.flows[0].moved, rates.peers[0].moved), (rates.moved, rates.moved));
            told += rates.moved;
            told
        });
    }
    assert_eq!(look().moved, Counters::default(), "and not again");
    daemon.stop();
}

#[test]
fn the_terminal_is_left_as_it_was_however_it_ends() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let _traffic = traffic(&net);
    type End = fn(&mut Pty);
    let ends: [(&str, End); 6] = [
        ("by q", |pty| pty.send("q")),
        ("by Esc", |pty| pty.send("\x1b")),
        ("by Ctrl-C", |pty| pty.send("\x03")),
        ("by SIGTERM", |pty| pty.signal(libc::SIGTERM)),
        ("by SIGINT", |pty| pty.signal(libc::SIGINT)),
        ("by SIGHUP", |pty| pty.signal(libc::SIGHUP)),
    ];
    for (when, end) in ends {
        // Its line stays on the screen that it left.
        let mut pty = Pty::start(&mut live(&ctl, &[]), USUAL);
        pty.until("the flows", has_both);
        end(&mut pty);
        assert_eq!(pty.ended().code(), Some(0), "{when}: {}", pty.text());
        let fresh = Pty::start(&mut Command::new("true"), USUAL).modes();
        assert_left(&pty, &fresh, when);
        assert_eq!(pty.text().trim(), "", "{when}");
    }
    // A terminal that takes nothing more: the picture is in the midst of it for good.
    let mut pty = Pty::start(&mut live(&ctl, &[]), USUAL);
    pty.until("the flows", has_both);
    assert_eq!(pty.ended_unread((400, 200), libc::SIGTERM).code(), Some(1));
    let fresh = Pty::start(&mut Command::new("true"), USUAL).modes();
    assert_eq!(pty.modes(), fresh, "it is not raw any more");
    let told = ctl.failure(&["top", "--live"], 2);
    assert!(told.contains("needs a terminal"), "{told}");
    let told = ctl.failure(&["top", "--live", "-o", "json"], 2);
    assert!(told.contains("leave out `--output`"), "{told}");
    daemon.stop();
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let Some(flowd) = env::var_os("FLOWD_FAILPOINTS_BIN").map(PathBuf::from) else {
        skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
    };
    let program = flowd.with_file_name("flowctl-failpoints");
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let mut command = net.gateway.command(program);
    command.args(["top", "--live"]).env("FLOWD_SOCKET", site.socket());
    let mut pty = Pty::start(command.env("FLOWD_TEST_PANIC_AT", "live"), USUAL);
    let text = pty.until("it panics", |text| text.contains("a test asked for it"));
    assert!(text.contains("panicked at"), "{text}");
    assert_eq!((pty.ended().code(), pty.ended().signal()), (Some(101), None));
    let fresh = Pty::start(&mut Command::new("true"), USUAL).modes();
    assert_left(&pty, &fresh, "by a panic");
    daemon.stop();
}

#[test]
fn a_daemon_that_goes_is_told_and_waited_for() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let _traffic = traffic(&net);
    let mut pty = Pty::start(&mut live(&ctl, &[]), USUAL);
    pty.until("the flows", has_both);
    daemon.stop();
    pty.until("it is told", |text| text.contains("! no daemon listens on"));
    assert!(has_both(&pty.text()), "what was known stays\n{}", pty.text());
    let mut daemon = site.start(&net.gateway);
    pty.until("it is back", |text| {
        has_both(text) && text.contains("flowd has restarted") && !text.contains("no daemon")
    });
    daemon.pause();
    pty.until("it is late", |text| text.contains("! the daemon has not answered for"));
    daemon.resume();
    pty.until("it answers", |text| !text.contains("not answered"));
    pty.send("q");
    assert_eq!(pty.ended().code(), Some(0), "{}", pty.text());
    daemon.stop();
}

#[test]
fn a_shell_stops_it_and_goes_on_with_it() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let _traffic = traffic(&net);
    let mut shell = net.gateway.command("sh");
    shell.arg("-i").env("FLOWD_SOCKET", site.socket()).env("PS1", "ready: ").env_remove("ENV");
    let mut pty = Pty::start(&mut shell, USUAL);
    pty.until("a shell", |text| text.contains("ready:"));
    let modes = pty.modes();
    let program = site::binary("FLOWCTL_BIN", "flowctl");
    pty.send(&format!("{} top --live\r", program.display()));
    pty.until("the flows", has_both);
    for _ in 0..2 {
        pty.send("\x1a");
        pty.until("the shell is back", |text| text.contains("Stopped"));
        assert_left(&pty, &modes, "by Ctrl-Z");
        pty.send("clear; fg\r");
        pty.until("the flows again", |text| {
            pty.look(vt100::Screen::alternate_screen) && has_both(text)
        });
    }
    pty.send("q");
    pty.until("the shell again", |text| text.contains("ready:"));
    pty.send("clear; echo ended with $?\r");
    pty.until("its exit code", |text| text.contains("ended with 0"));
    pty.send("exit\r");
    assert!(pty.ended().success());
    daemon.stop();
}
