//! What operators see of replays, as text.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    thread,
};

use super::{Change, Client, CtlError, Filters, Format, Replay, Screen, Tally, Verdict, run, show};
use crate::{
    ctl::{filters::Range, output::Sink},
    policy::Problem,
    wire::{self, Timestamp},
};

const NOW: Timestamp = Timestamp(1_795_233_600_000);

fn tally(flows: u64, packets: u64, bytes: u64) -> Tally {
    Tally { flows, packets, bytes }
}

fn replay() -> Replay {
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);
    let cut = Change {
        peer: Some("alice\x1b[31m".to_owned()),
        was: allow,
        was_rule: None,
        would_be: deny,
        rule: Some("no-smtp".to_owned()),
        traffic: tally(12, 40_000, 31_300_000),
    };
    let freed = Change {
        peer: None,
        was: deny,
        was_rule: Some("old".to_owned()),
        would_be: allow,
        rule: None,
        traffic: tally(1, 19, 1_140),
    };
    Replay {
        problems: Vec::new(),
        since: Some(Timestamp(NOW.0 - 86_400_000)),
        until: NOW,
        flows: 17,
        changes: vec![cut, freed],
        denied: tally(13, 40_001, 31_300_060),
        allowed: tally(4, 60, 9_000),
        unjudged: tally(0, 7, 420),
    }
}

fn shown(format: Format, replay: &Replay, width: u16) -> String {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, width);
    show(&mut screen, format, replay).unwrap();
    sink.text()
}

#[test]
fn the_table_is_aligned_and_obeys_no_name() {
    let expected = "\
PEER           WAS    RULE       WOULD BE  RULE       FLOWS  PACKETS    BYTES
alice\\x1b[31m  allow  (no rule)  deny      no-smtp       12    40.0k  31.3 MB
-              deny   old        allow     (no rule)      1       19   1.1 kB

Of 17 flows, 4 would be allowed (60 packets, 9.0 kB), 13 denied (40.0k packets, 31.3 MB); \
not judged: 0 (7 packets, 420 B)
Stored records from 2026-11-20 04:00:00.000 UTC to 2026-11-21 04:00:00.000 UTC
";
    assert_eq!(shown(Format::Table, &replay(), 90), expected);
}

#[test]
fn a_narrow_terminal_keeps_who_and_what() {
    let text = shown(Format::Table, &replay(), 30);
    let header = text.lines().next().unwrap();
    assert_eq!(header, "PEER           WAS    WOULD BE");
}

#[test]
fn nothing_is_said_in_words() {
    let none = Replay { changes: Vec::new(), unjudged: Tally::default(), ..replay() };
    let expected = "\
No verdict changes.

Of 17 flows, 4 would be allowed (60 packets, 9.0 kB), 13 denied (40.0k packets, 31.3 MB)
Stored records from 2026-11-20 04:00:00.000 UTC to 2026-11-21 04:00:00.000 UTC
";
    assert_eq!(shown(Format::Table, &none, 80), expected);
    assert_eq!(shown(Format::Csv, &none, 80).lines().count(), 1, "the header");
}

#[test]
fn every_form_says_the_same() {
    let replay = replay();
    assert_eq!(serde_json::from_str::<Replay>(&shown(Format::Json, &replay, 80)).unwrap(), replay);
    let lines = shown(Format::Jsonl, &replay, 80);
    let changes: Vec<Change> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(changes, replay.changes);
    let text = shown(Format::Csv, &replay, 80);
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(csv.headers().unwrap(), wire::CHANGE_CSV_COLUMNS.as_slice());
    let rows: Vec<_> = csv.records().map(Result::unwrap).collect();
    let cells = rows[1].iter().collect::<Vec<_>>().join(" ");
    assert_eq!(cells, " deny old allow  1 19 1140");
    assert_eq!(rows.len(), 2);
}

/// A daemon that takes one request, which it hands back, and gives one answer.
async fn asked(answer: String, file: &Path) -> (Result<String, CtlError>, String) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("flowd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut chunk = [0; 4096];
        while !request.ends_with(POLICY) {
            let read = stream.read(&mut chunk).unwrap();
            assert_ne!(read, 0, "the request is whole: {request}");
            request += str::from_utf8(&chunk[..read]).unwrap();
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).unwrap();
        request
    });
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, 90);
    let range = Range { since: Some("1h".to_owned()), until: None };
    let filters = Filters { range, ..Filters::default() };
    let client = Client::new(&socket);
    let done = run(&client, &mut screen, Format::Json, file, &filters).await;
    (done.map(|()| sink.text()), daemon.join().unwrap())
}

const POLICY: &str = "default = \"deny\" # ü\n";

#[tokio::test]
async fn the_file_is_sent_as_it_is_and_its_problems_are_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    std::fs::write(&file, POLICY).unwrap();
    let (done, request) = asked(serde_json::to_string(&replay()).unwrap(), &file).await;
    assert_eq!(serde_json::from_str::<Replay>(&done.unwrap()).unwrap(), replay());
    assert!(
        request
            .starts_with("POST /v1/policy/replay?since=2026-11-21T03%3A00%3A00.000Z HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("content-type: application/toml\r\n"), "{request}");

    let problem = Problem { line: 1, column: 1, text: "no".to_owned() };
    let wrong = Replay { problems: vec![problem], ..replay() };
    let (done, _) = asked(serde_json::to_string(&wrong).unwrap(), &file).await;
    assert!(matches!(done, Err(CtlError::Told)), "{done:?}");
}
