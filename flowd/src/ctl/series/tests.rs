//! What operators see of series, as text.

use super::{Format, Point, Screen, Series, SeriesLine, Sort, Traffic, run};
use crate::{
    ctl::output::Sink,
    flows::{Counters, Tally},
    wire::{self, Timestamp},
};

const NOW: Timestamp = Timestamp(1_795_233_600_000);
const STEP_MS: i64 = 300_000;

fn traffic(flows: u64, packets: u64, bytes: u64) -> Traffic {
    let counters = Counters { rx_packets: packets, rx_bytes: bytes, ..Counters::default() };
    let allowed = Tally { flows, packets, bytes };
    Traffic { flows, packets, bytes, counters, allowed, denied: Tally::default() }
}

fn points(bytes: &[u64]) -> Vec<Point> {
    let starts = (0..).map(|index| Timestamp(NOW.0 - (4 - index) * STEP_MS));
    let point = |(start, bytes): (Timestamp, &u64)| Point {
        start,
        traffic: traffic(u64::from(*bytes > 0), bytes / 100, *bytes),
    };
    starts.zip(bytes).map(point).collect()
}

fn series(by: Option<&str>) -> Series {
    let line = |values: Vec<Option<String>>, bytes: &[u64]| SeriesLine {
        key: None,
        values,
        total: traffic(2, 60, bytes.iter().sum()),
        points: points(bytes),
    };
    let name = |text: &str| Some(text.to_owned());
    let lines = vec![
        line(vec![name("alice\x1b[31m"), name("443")], &[0, 2_000, 8_000, 0]),
        line(vec![name("=bob"), None], &[100, 100, 100, 100]),
    ];
    Series {
        since: Timestamp(NOW.0 - 4 * STEP_MS + 7),
        until: NOW,
        step: "5m".to_owned(),
        by: by.map(|by| by.parse().unwrap()),
        total: traffic(5, 200, 20_400),
        points: points(&[100, 2_100, 18_100, 100]),
        lines: by.map(|_| lines).unwrap_or_default(),
        rest: by.map(|_| line(vec![], &[0, 0, 10_000, 0])),
    }
}

fn shown(format: Format, series: &Series, width: u16) -> String {
    let sink = Sink::default();
    let mut screen = Screen::fixed(Box::new(sink.clone()), NOW, width);
    run(&mut screen, format, series, Sort::Bytes).unwrap();
    sink.text()
}

#[test]
fn a_series_has_a_bar_for_each_step() {
    let expected = "\
START (UTC)  FLOWS  PACKETS       RX   TX    BYTES
03:40:00         1        1    100 B  0 B    100 B  ▏
03:45:00         1       21   2.1 kB  0 B   2.1 kB  ███▌
03:50:00         1      181  18.1 kB  0 B  18.1 kB  ██████████████████████████████
03:55:00         1        1    100 B  0 B    100 B  ▏

4 steps of 5m from 2026-11-21 03:40:00.007 UTC to 2026-11-21 04:00:00.000 UTC; in all 5 flows, 200 packets, 20.4 kB
";
    assert_eq!(shown(Format::Table, &series(None), 100), expected);
}

#[test]
fn lines_have_a_sparkline_and_obey_no_name() {
    let text = shown(Format::Table, &series(Some("peer,dst_port")), 100);
    let expected = "\
PEER           DST-PORT  FLOWS  PACKETS    BYTES  SHARE  OVER TIME
alice\\x1b[31m  443           2       60  10.0 kB  49.0%   ▂█
=bob           (none)        2       60    400 B   2.0%  ████
(others)                     2       60  10.0 kB  49.0%    █
";
    assert!(text.starts_with(expected), "{text}");
    for width in [80, 50] {
        let text = shown(Format::Table, &series(Some("peer,dst_port")), width);
        let table = text.lines().take_while(|line| !line.is_empty());
        assert!(table.clone().all(|line| line.chars().count() <= usize::from(width)), "{text}");
    }
}

#[test]
fn every_form_says_the_same() {
    for by in [None, Some("peer,dst_port")] {
        let series = series(by);
        let json = shown(Format::Json, &series, 80);
        assert_eq!(serde_json::from_str::<Series>(&json).unwrap(), series);
        let lines = shown(Format::Jsonl, &series, 80);
        assert_eq!(lines.lines().count(), if by.is_some() { 3 } else { 4 });
        let text = shown(Format::Csv, &series, 80);
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(csv.headers().unwrap(), wire::series_csv_columns(series.by.as_ref()));
        let rows: Vec<Vec<String>> = csv.deserialize().map(Result::unwrap).collect();
        let bytes = rows[0].len() - 11;
        let sum: u64 = rows.iter().map(|row| row[bytes].parse::<u64>().unwrap()).sum();
        assert_eq!(sum, series.total.bytes, "{text}");
        if by.is_some() {
            assert_eq!(rows[4][1..4], ["2", "'=bob", ""]);
            assert_eq!(rows[8][1..4], ["rest", "", ""]);
        }
    }
}

#[test]
fn nothing_is_said_in_words() {
    let none = Series { total: Traffic::default(), ..series(None) };
    assert_eq!(shown(Format::Table, &none, 80), "No flows match.\n");
}
