//! Who may ask, and what is written down of it: real users at the socket, and an auditor who trusts
//! nothing but Python's standard library.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Output},
    thread,
};

use flowd::{
    audit::Hash,
    wire::{AuditEntry, AuditVerdict},
};
use flowd_common::counter::Direction;
use flowd_tests::{
    daemon::Daemon,
    detach,
    site::{Settings, Site, binary, one_line_of_failure},
    skip,
    topology::Topology,
    wait,
};

/// Users and groups that no machine has.
const READERS: u32 = 54_001;
const ADMINS: u32 = 54_002;
const READER: User = User { uid: 54_101, groups: &[54_077, READERS] };
const ADMIN: User = User { uid: 54_102, groups: &[ADMINS] };
const STRANGER: User = User { uid: 54_103, groups: &[54_077] };
/// Sees sums of one user, who is peer0's.
const HELPDESK: User = User { uid: 54_104, groups: &[HELPERS] };
const HELPERS: u32 = 54_003;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    groups: &'static [u32],
}

/// A gateway whose flowd knows the two groups.
struct Audited {
    net: Topology,
    site: Site,
}

impl Audited {
    fn new() -> (Self, Daemon) {
        let net = Topology::new(1);
        let site = Site::new(&net, &Settings::default());
        let groups = format!("[api]\nread_groups = [\"{READERS}\"]\nadmin_groups = [\"{ADMINS}\"]");
        let grant = format!(
            "[[api.grants]]\ngroup = \"{HELPERS}\"\nusers = [\"peer0@example.com\"]\n[identity]"
        );
        let text = site.config(&Settings::default());
        site.configure(&text.replace("[api]", &groups).replace("[identity]", &grant));
        // Others have to get at the socket, and at the program.
        fs::set_permissions(site.path(""), Permissions::from_mode(0o755)).expect("it is ours");
        fs::copy(binary("FLOWCTL_BIN", "flowctl"), site.path("flowctl")).expect("room");
        let daemon = site.start(&net.gateway);
        (Self { net, site }, daemon)
    }

    /// A program of another user, in the gateway's namespace.
    fn command(&self, user: User, program: &str) -> Command {
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        let mut command = self.net.gateway.command("setpriv");
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.uid.to_string()]);
        command.args(["--groups", &groups.join(",")]).arg(program);
        command
    }

    fn flowctl(&self, user: User, args: &[&str]) -> Output {
        let program = self.site.path("flowctl");
        let mut command = self.command(user, program.to_str().expect("it is text"));
        command.arg("--socket").arg(self.site.socket()).args(args);
        command.output().expect("it is there")
    }

    /// The log, as its export has it.
    fn entries(&self) -> (Vec<AuditEntry>, String) {
        let output = self.site.flowctl(&self.net.gateway).run(&["audit", "export"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("JSON is text");
        (text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect(), text)
    }

    /// The gateway's key, and the number of the newest entry that it has signed, once there is one.
    fn signed(&self) -> (String, u64) {
        let ctl = self.site.flowctl(&self.net.gateway);
        let key = ctl.key();
        let proven = wait::until_some(wait::SOON, "the log is signed", || {
            let verdict: AuditVerdict = ctl.json(&["audit", "verify", "--online", "--key", &key]);
            (verdict.proven_seq > 0).then_some(verdict.proven_seq)
        });
        (key, proven)
    }

    /// Those of one user, once one of them is as wanted: entries are written within a second.
    fn of(&self, user: User, wanted: impl Fn(&AuditEntry) -> bool) -> Vec<AuditEntry> {
        wait::until_some(wait::SOON, "it is in the log", || {
            let (mut entries, _) = self.entries();
            entries.retain(|entry| entry.uid == Some(user.uid));
            entries.iter().any(&wanted).then_some(entries)
        })
    }
}

/// A connection of another user: the kernel asks the thread that connects.
fn connect_as(user: User, socket: &Path) -> UnixStream {
    let socket = socket.to_owned();
    let connect = move || {
        // The calls of the C library would change every thread of the process.
        // SAFETY: the list has as many numbers as is said, and only this thread changes.
        let done =
            unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) };
        assert_eq!(done, 0, "the tests run as root");
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            // SAFETY: three numbers, and only this thread changes.
            let done = unsafe { libc::syscall(call, user.uid, user.uid, user.uid) };
            assert_eq!(done, 0, "the tests run as root");
        }
        UnixStream::connect(socket).expect("flowd listens")
    };
    thread::spawn(connect).join().expect("it connects")
}

/// The status of the next answer, which is read whole.
fn status(answers: &mut impl BufRead) -> u16 {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(answers.read_line(&mut head).expect("an answer"), 0, "it breaks off: {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.expect("it is no stream").parse().expect("a number");
    answers.read_exact(&mut vec![0; length]).expect("the whole body");
    head[9..12].parse().expect("HTTP/1.1 and a status")
}

#[test]
fn groups_decide_who_may_what_and_each_attempt_is_told() {
    let (audited, daemon) = Audited::new();
    let policy = audited.site.path("candidate.toml");
    audited.site.write("candidate.toml", "default = \"allow\"\n");
    fs::set_permissions(&policy, Permissions::from_mode(0o644)).expect("it is ours");
    let apply = ["policy", "apply", "--yes", policy.to_str().expect("it is text")];
    let cases: [(User, &[&str], Option<&str>); 11] = [
        (HELPDESK, &["summary", "--user", "peer0@example.com"], None),
        (HELPDESK, &["summary", "--user", "peer1@example.com"], Some("one peer or user at a time")),
        (HELPDESK, &["flows", "--user", "peer0@example.com"], Some("the sums of one peer or user")),
        (HELPDESK, &["status"], Some("the sums of one peer or user")),
        (READER, &["flows", "--peer", "somebody"], None),
        (READER, &apply, Some("api.admin_groups")),
        (READER, &["audit", "list"], Some("api.admin_groups")),
        (ADMIN, &["audit", "list"], None),
        (ADMIN, &apply, None),
        (STRANGER, &["status"], Some("api.read_groups")),
        (STRANGER, &["audit", "list"], Some("api.admin_groups")),
    ];
    for (user, args, refused) in cases {
        let output = audited.flowctl(user, args);
        match refused {
            None => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{user:?} {args:?}: {stderr}");
            }
            Some(remedy) => {
                let line = one_line_of_failure(&output, 1);
                assert!(line.contains(remedy), "{user:?} {args:?}: {line}");
                if user != HELPDESK {
                    assert!(line.contains(&user.uid.to_string()), "{user:?} {args:?}: {line}");
                }
            }
        }
    }
    let refused = |path: &'static str| {
        move |entry: &AuditEntry| {
            entry.event == "access.refused" && entry.resource.as_deref() == Some(path)
        }
    };
    let of_stranger = audited.of(STRANGER, refused("/v1/audit"));
    assert!(of_stranger.iter().any(refused("/v1/status")), "{of_stranger:#?}");
    let program = audited.site.path("flowctl").display().to_string();
    for entry in &of_stranger {
        assert_eq!((entry.outcome.as_str(), entry.actor.as_str()), ("refused", "54103"));
        assert_eq!(entry.executable.as_ref(), Some(&program));
        assert_eq!(entry.details["groups"].to_string(), "[54077]");
    }
    let of_reader = audited.of(READER, refused("/v1/policy"));
    let asked = of_reader.iter().find(|entry| entry.event == "query").expect("it was allowed");
    assert_eq!(asked.details["query"]["peer"], "somebody");
    let of_admin = audited.of(ADMIN, |entry| entry.event == "policy.applied");
    let requested = of_admin.iter().find(|entry| entry.event == "policy.requested");
    assert_eq!(requested.expect("before it is applied").details["revision_before"], 0);
    daemon.stop();
}

#[test]
fn an_auditor_needs_nothing_of_ours_and_finds_what_was_changed() {
    if Command::new("python3").arg("--version").output().is_err() {
        skip!("no python3");
    }
    let (audited, daemon) = Audited::new();
    audited.flowctl(STRANGER, &["status"]);
    audited.flowctl(READER, &["flows", "--user", "zoë \"the, first\"\u{1f}"]);
    audited.of(READER, |entry| entry.event == "query");
    daemon.stop();
    let daemon = audited.site.start(&audited.net.gateway);
    let (entries, text) = wait::until_some(wait::SOON, "both starts are in it", || {
        let (entries, text) = audited.entries();
        let starts = entries.iter().filter(|entry| entry.event == "daemon.started").count();
        (starts == 2).then_some((entries, text))
    });
    assert!(entries.iter().any(|entry| entry.event == "daemon.stopped"), "{text}");
    audited.site.write("audit.jsonl", &text);
    daemon.kill();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit_verify.py");
    let verify = |name: &str, head: &str| {
        let mut command = Command::new("python3");
        let output = command.arg(script).arg(audited.site.path(name)).arg(head).output();
        let output = output.expect("it is there");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let last = entries.last().expect("there are some");
    let head = format!("{}:{}", last.seq, last.hash);
    for file in ["audit.jsonl", "store/audit.sqlite"] {
        let (code, said) = verify(file, &head);
        assert_eq!(code, Some(0), "{file}: {said}");
    }
    let edited = text.replacen("54103", "54104", 1);
    assert_ne!(edited, text);
    audited.site.write("edited.jsonl", &edited);
    let (code, said) = verify("edited.jsonl", &head);
    assert!(code == Some(1) && said.contains("was edited"), "{said}");
    let cut: String = text
        .lines()
        .rev()
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .map(|line| format!("{line}\n"))
        .collect();
    audited.site.write("cut.jsonl", &cut);
    let (code, said) = verify("cut.jsonl", &head);
    assert!(code == Some(1) && said.contains("is not there"), "{said}");
    for file in ["nowhere.sqlite", "nowhere.jsonl"] {
        assert_eq!(verify(file, &head), (Some(2), String::new()), "{file}");
    }

    // And the one that was killed is told of by the next.
    let daemon = audited.site.start(&audited.net.gateway);
    let expected = ["started", "stopped", "started", "crashed", "started"];
    let expected = expected.map(|word| format!("daemon.{word}")).to_vec();
    // They are written within a second.
    wait::until_equal("what the daemons told of themselves", &expected, || {
        let words = audited.entries().0.into_iter().map(|entry| entry.event);
        words.filter(|word| word.starts_with("daemon.")).collect()
    });
    let file = audited.site.path("store/audit.sqlite");
    let file = file.to_str().expect("it is text");
    let ctl = audited.site.flowctl(&audited.net.gateway);
    for args in [&["audit", "verify", file, "--head", &head][..], &["audit", "verify", "--online"]]
    {
        let output = ctl.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    daemon.stop();
}

#[test]
fn a_log_that_was_truncated_while_flowd_did_not_run_is_told_and_found_from_then_on() {
    if Command::new("python3").arg("--version").output().is_err() {
        skip!("no python3");
    }
    let (audited, daemon) = Audited::new();
    let ctl = audited.site.flowctl(&audited.net.gateway);
    let store = audited.site.path("store");
    let log = store.join("audit.sqlite").display().to_string();
    let (key, signed) = audited.signed();
    let online = ["audit", "verify", "--online", "--key", &key];
    let offline = ["audit", "verify", &log, "--key", &key];
    daemon.stop();
    assert!(ctl.run(&offline).status.success());
    let daemon = audited.site.start(&audited.net.gateway);
    wait::until(wait::SOON, "it tells of its start", || {
        let entries = audited.entries().0;
        assert!(entries.iter().all(|entry| entry.event != "audit.broken"), "nobody touched it");
        entries.iter().filter(|entry| entry.event == "daemon.started").count() == 2
    });
    daemon.stop();

    let script = format!(
        "import sqlite3; db = sqlite3.connect({log:?}); db.execute('DROP TRIGGER entry_stays'); \
         db.execute('DELETE FROM entry WHERE seq >= {signed}'); db.commit()"
    );
    let done = Command::new("python3").arg("-c").arg(script).status().expect("it is there");
    assert!(done.success());
    let daemon = audited.site.start(&audited.net.gateway);
    let told = wait::until_some(wait::SOON, "it is told", || {
        audited.entries().0.into_iter().find(|entry| entry.event == "audit.broken")
    });
    let problem = told.details["problem"].as_str().expect("a line");
    assert!(problem.starts_with(&format!("truncated: entry {signed}, which was")), "{problem}");
    let told = format!("WRONG: made anew: entry {signed} has another hash than was signed");
    wait::until(wait::SOON, "flowd has gone on behind it", || {
        let output = ctl.run(&online);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stdout).contains(&told)
    });
    assert!(daemon.log().contains("the audit log is not as it was signed"), "{}", daemon.log());
    daemon.kill();
    let output = ctl.run(&offline);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&told));
}

/// Each request is another one, from a user who may not ask at all.
#[test]
fn a_flood_of_refused_requests_neither_fills_the_disk_nor_stops_the_drains() {
    const REQUESTS: u64 = 20_000;
    let (audited, daemon) = Audited::new();
    let ctl = audited.site.flowctl(&audited.net.gateway);
    let drains = ctl.status().drain.count;
    let mut stream = connect_as(STRANGER, &audited.site.socket());
    let mut answers = BufReader::new(stream.try_clone().expect("a descriptor"));
    for n in 0..REQUESTS {
        write!(stream, "GET /v1/flows?peer={n} HTTP/1.1\r\nHost: flowd\r\n\r\n").expect("it reads");
        assert_eq!(status(&mut answers), 403);
    }
    wait::until(wait::SOON, "drains go on", || ctl.status().drain.count > drains + 1);
    daemon.stop();
    let size = fs::metadata(audited.site.path("store/audit.sqlite")).expect("it is there").len();
    assert!(size < 1 << 20, "{size} bytes");
    let daemon = audited.site.start(&audited.net.gateway);
    let of_stranger = audited.of(STRANGER, |entry| entry.event == "access.refused");
    let counted: u64 = of_stranger.iter().map(|entry| entry.count).sum();
    // A disk that hangs meanwhile is told of as well.
    let (all, _) = audited.entries();
    let gaps = all.iter().filter(|entry| entry.event == "audit.gap");
    let lost: u64 = gaps.filter_map(|gap| gap.details["found_no_room"].as_u64()).sum();
    assert!(counted <= REQUESTS && counted + lost >= REQUESTS, "{counted} and {lost}");
    assert!(of_stranger.len() < 100, "{}", of_stranger.len());
    daemon.stop();
}

/// One after the other, each waited for: what two of them did at once would be one entry, or two.
#[test]
fn what_becomes_of_the_gateway_is_told() {
    let (mut audited, mut daemon) = Audited::new();
    let is_there = |audited: &Audited, word: &str, holds: &dyn Fn(&AuditEntry) -> bool| {
        wait::until(wait::SOON, word, || {
            let (entries, _) = audited.entries();
            entries.iter().any(|entry| entry.event == word && holds(entry))
        });
    };
    let key = audited.net.peers[0].keys.public.clone();
    let of_peer = |entry: &AuditEntry| entry.resource.as_ref() == Some(&key);
    let of_wg0 = |entry: &AuditEntry| entry.resource.as_deref() == Some("wg0");
    is_there(&audited, "program.attached", &|entry| of_wg0(entry) && entry.details["peers"] == 1);
    is_there(&audited, "peer.added", &of_peer);
    audited.net.warm_up(&audited.net.peers[0]);
    is_there(&audited, "peer.session_opened", &of_peer);
    let peer = &audited.net.peers[0];
    audited.net.admit(peer, "10.99.0.0/16");
    is_there(&audited, "peer.allowed_ips_changed", &|entry| {
        of_peer(entry) && entry.details["to"][0] == "10.99.0.0/16"
    });
    let names = format!("[[peers]]\npublic_key = \"{key}\"\nname = \"mallory\"\n");
    audited.site.write("peers.toml", &names);
    daemon.read_names();
    is_there(&audited, "peer.renamed", &|entry| {
        of_peer(entry)
            && entry.details["from"]["name"] == "peer0"
            && entry.details["to"]["name"] == "mallory"
    });
    audited.net.dismiss(&audited.net.peers[0]);
    is_there(&audited, "peer.removed", &of_peer);
    is_there(&audited, "peer.session_closed", &of_peer);
    detach::programs(&audited.net.gateway, "wg0", Direction::Ingress);
    is_there(&audited, "program.taken_off", &of_wg0);
    let is_detached = |entry: &AuditEntry| entry.resource.as_deref() == Some("detached");
    is_there(&audited, "gap.opened", &is_detached);
    is_there(&audited, "gap.closed", &is_detached);
    audited.net.lower("wg0");
    is_there(&audited, "interface.removed", &of_wg0);
    audited.net.raise("wg0");
    is_there(&audited, "interface.added", &of_wg0);
    daemon.stop();
    let text = fs::read_to_string(audited.site.path("flowd.toml")).expect("it is there");
    audited.site.configure(&text.replace("tail_records = 16", "tail_records = 17"));
    let daemon = audited.site.start(&audited.net.gateway);
    is_there(&audited, "configuration.changed", &|entry| {
        let told = serde_json::json!({ "store.tail_records": { "old": 16, "new": 17 } });
        entry.details["keys"] == told
    });
    daemon.stop();
}

/// Whoever was told that a policy is in force finds it in the log, once, wherever flowd dies.
#[test]
fn an_entry_is_there_once_or_not_at_all_wherever_flowd_dies() {
    let (mut audited, daemon) = Audited::new();
    daemon.stop();
    if !audited.site.use_failpoints() {
        skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
    }
    let (mut tried, mut done) = (0, Vec::new());
    for place in ["audit-inserted", "audit-committed"] {
        for nth in 1..=4 {
            audited.site.set_environment("FLOWD_TEST_KILL_AT", Some(&format!("{place}:{nth}")));
            let mut daemon = Daemon::begin(&audited.site, &audited.net.gateway);
            wait::until(wait::SOON, "it dies there", || {
                tried += 1;
                let text = format!("# {tried}\ndefault = \"allow\"\n");
                audited.site.write("candidate.toml", &text);
                let file = audited.site.path("candidate.toml").display().to_string();
                let ctl = audited.site.flowctl(&audited.net.gateway);
                if ctl.run(&["policy", "apply", "--yes", &file]).status.success() {
                    done.push(Hash::of(text.as_bytes()).to_string());
                }
                daemon.ended().is_some()
            });
        }
    }
    audited.site.set_environment("FLOWD_TEST_KILL_AT", None);
    let daemon = audited.site.start(&audited.net.gateway);
    let (entries, _) = audited.entries();
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
    let times = |hash: &str| {
        let requested = entries.iter().filter(|entry| entry.event == "policy.requested");
        requested.filter(|entry| entry.details["sha256"] == hash).count()
    };
    for n in 1..=tried {
        let hash = Hash::of(format!("# {n}\ndefault = \"allow\"\n").as_bytes()).to_string();
        let expected = if done.contains(&hash) { 1..=1 } else { 0..=1 };
        assert!(expected.contains(&times(&hash)), "{n}: {} times", times(&hash));
    }
    // Nothing was signed that a crash took.
    let (key, _) = audited.signed();
    let ctl = audited.site.flowctl(&audited.net.gateway);
    let verdict: AuditVerdict = ctl.json(&["audit", "verify", "--online", "--key", &key]);
    assert!(verdict.is_whole, "{verdict:#?}");
    daemon.stop();
}
