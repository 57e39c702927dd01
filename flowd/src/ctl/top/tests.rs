//! What operators see of rankings, as text.

use super::{Format, Screen, Top, TopRow, Traffic, run};
use crate::{
    ctl::output::Sink,
    flows::{By, Counters, Sort, Tally},
    wire::{self, Timestamp},
};

const NOW: Timestamp = Timestamp(1_795_233_600_000);

fn traffic(allowed: Tally, denied: Tally) -> Traffic {
    let (packets, bytes) = (allowed.packets + denied.packets, allowed.bytes + denied.bytes);
    let counters = Counters { tx_packets: packets, tx_bytes: bytes, ..Counters::default() };
    Traffic { flows: allowed.flows + denied.flows, packets, bytes, counters, allowed, denied }
}

fn tally(flows: u64, packets: u64, bytes: u64) -> Tally {
    Tally { flows, packets, bytes }
}

fn top(by: By) -> Top {
    let row = |key: Option<&str>, allowed, denied| {
        let traffic = traffic(allowed, denied);
        let share = wire::share(traffic.bytes, 41_001_140);
        let key = key.map(str::to_owned);
        TopRow { values: vec![key.clone()], key, share, traffic }
    };
    Top {
        since: None,
        until: NOW,
        by: by.into(),
        sort: Sort::Bytes,
        keys: 5,
        total: traffic(tally(13, 60_000, 41_000_000), tally(4, 19, 1_140)),
        rows: vec![
            row(Some("alice\x1b[31m"), tally(12, 40_000, 31_300_000), tally(0, 0, 0)),
            row(None, tally(1, 19_990, 9_699_400), tally(0, 7, 420)),
            row(Some("=bob"), tally(0, 10, 600), tally(4, 12, 720)),
        ],
        rest: traffic(Tally::default(), Tally::default()),
    }
}

fn shown(format: Format, top: &Top, width: u16) -> String {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, width);
    run(&mut screen, format, top).unwrap();
    sink.text()
}

#[test]
fn the_table_is_aligned_and_obeys_no_name() {
    let expected = "\
PEER           FLOWS  PACKETS    BYTES  SHARE            ALLOWED     DENIED
alice\\x1b[31m     12    40.0k  31.3 MB   76.3% ███████▋  31.3 MB          0
(none)             1    20.0k   9.7 MB   23.7% ██▍        9.7 MB  7 packets
=bob               4       22   1.3 kB    0.0%             600 B    4 flows

3 of 5 shown; in all 17 flows, 60.0k packets, 41.0 MB
";
    assert_eq!(shown(Format::Table, &top(By::Peer), 80), expected);
}

#[test]
fn a_narrow_terminal_keeps_what_is_sorted_by() {
    let mut top = top(By::Dst);
    top.rows[0].values = vec![Some("2001:db8:1111:2222:3333:4444:5555:6666".to_owned())];
    for width in [80, 60] {
        let text = shown(Format::Table, &top, width);
        for line in text.lines() {
            assert!(line.chars().count() <= usize::from(width), "{line}");
        }
        for column in ["DESTINATION", "BYTES"] {
            assert!(text.contains(column), "{column} in {text}");
        }
    }
}

#[test]
fn what_is_in_no_row_has_a_row_of_its_own() {
    let mut top = top(By::Peer);
    top.by = "peer,rule".parse().unwrap();
    top.rest = traffic(tally(1, 90, 20_500_570), tally(0, 0, 0));
    for row in &mut top.rows {
        row.values.push(None);
    }
    let text = shown(Format::Table, &top, 100);
    let last = text.lines().nth(4).unwrap();
    let cells: Vec<_> = last.split_whitespace().collect();
    assert_eq!(cells, ["(others)", "1", "90", "20.5", "MB", "50.0%", "█████", "20.5", "MB", "0"]);
    assert!(text.starts_with("PEER           RULE "), "{text}");
}

#[test]
fn every_form_says_the_same() {
    let top = top(By::Peer);
    assert_eq!(serde_json::from_str::<Top>(&shown(Format::Json, &top, 80)).unwrap(), top);
    let lines = shown(Format::Jsonl, &top, 80);
    let rows: Vec<TopRow> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, top.rows);
    let text = shown(Format::Csv, &top, 80);
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(csv.headers().unwrap(), wire::top_csv_columns(&top.by));
    let rows: Vec<_> = csv.records().map(Result::unwrap).collect();
    let cells = rows[2].iter().collect::<Vec<_>>().join(" ");
    assert_eq!(cells, "'=bob 4 22 1320 0 0 22 1320 0 10 600 4 12 720 0.000032");
    assert_eq!(&rows[1][0], "");
}

#[test]
fn nothing_is_said_in_words() {
    let none = Top { rows: Vec::new(), keys: 0, ..top(By::Rule) };
    assert_eq!(shown(Format::Table, &none, 80), "No flows match.\n");
    assert_eq!(shown(Format::Csv, &none, 80).lines().count(), 1, "the header");
}
