use proptest::prelude::*;

use super::{HOUR_MS, Line, MINUTE_MS, Series, Step};
use crate::flows::{By, Counters, Filter, Flow, Group, Grouping, Record, Summary, Tuple, sample};

#[test]
fn a_step_is_a_part_of_a_day() {
    for (text, written) in [
        ("1m", Some("1m")),
        ("15m", Some("15m")),
        ("60m", Some("1h")),
        ("24h", Some("1d")),
        ("1d", Some("1d")),
        ("90m", Some("90m")),
        ("0m", None),
        ("7m", None),
        ("5h", None),
        ("2d", None),
        ("30s", None),
        ("65535d", None),
        ("+1m", None),
        ("1", None),
        ("m", None),
        ("", None),
        ("1é", None),
    ] {
        let read = text.parse::<Step>().ok().map(|step| step.to_string());
        assert_eq!(read.as_deref(), written, "{text}");
    }
    for (range_ms, step) in [(0, "1m"), (2 * HOUR_MS, "1m"), (3 * HOUR_MS, "5m"), (i64::MAX, "1d")]
    {
        assert_eq!(Step::of_range(range_ms, 120).to_string(), step, "{range_ms}");
    }
    let hour: Step = "1h".parse().unwrap();
    for (ms, start) in [(0, 0), (HOUR_MS - 1, 0), (HOUR_MS, HOUR_MS), (-1, -HOUR_MS)] {
        assert_eq!(hour.around(ms), start);
    }
}

/// A flow: when it starts, to which port, and the length and packets of each of its windows.
type Life = (i64, u16, Vec<(i64, u64)>);

fn records(flows: &[Life]) -> Vec<Record> {
    let mut records = Vec::new();
    for (index, (start_ms, port, windows)) in flows.iter().enumerate() {
        let (mut at, mut total) = (*start_ms, Counters::default());
        let peer_port = index as u16;
        let tuple = Tuple { peer_port, remote_port: *port, ..sample::record().tuple };
        for (number, (length, packets)) in windows.iter().enumerate() {
            let rx_packets = packets + u64::from(number == 0);
            let counters =
                Counters { rx_packets, rx_bytes: 60 * rx_packets, ..Counters::default() };
            total += counters;
            records.push(Record {
                tuple,
                window_start_ms: at,
                window_end_ms: at + length,
                first_seen_ms: *start_ms,
                counters,
                total,
                ..sample::record()
            });
            at += length;
        }
    }
    records
}

/// Flows by looking at every record.
fn slow(records: &[&Record]) -> (u64, Counters) {
    let mut flows: Vec<Flow> = Vec::new();
    for record in records {
        match flows.iter_mut().find(|flow| flow.newest.tuple == record.tuple) {
            Some(flow) => flow.absorb((*record).clone()),
            None => flows.push(Flow::new((*record).clone())),
        }
    }
    let sum = flows.iter().fold(Counters::default(), |sum, flow| sum + flow.counters);
    (flows.len() as u64, sum)
}

fn told(sum: &Summary) -> (u64, Counters) {
    (sum.flows, sum.counters)
}

proptest! {
    #[test]
    fn a_series_is_the_slow_twins(
        flows in prop::collection::vec(
            (0..3 * HOUR_MS, 1_u16..4, prop::collection::vec((1..40 * MINUTE_MS, 0_u64..5), 1..8)),
            0..8,
        ),
        step in prop::sample::select(vec!["1m", "15m", "1h"]),
        since_ms in prop::option::of(0..4 * HOUR_MS),
        min_bytes in prop::option::of(0_u64..1_000),
        chosen in prop::collection::btree_set(1_u16..5, 0..3),
        cut in 0_usize..30,
    ) {
        let step: Step = step.parse().unwrap();
        let records = records(&flows);
        let filter = Filter { since_ms, min_bytes, ..Filter::default() };
        let matching: Vec<_> = records.iter().filter(|record| filter.matches(record)).collect();
        let by = Grouping::from(By::DstPort);
        let groups: Vec<Group> = chosen.iter().map(|port| {
            let tuple = Tuple { remote_port: *port, ..sample::record().tuple };
            by.group(&Record { tuple, ..sample::record() })
        }).collect();
        let new = || Series::new(step, Some((by.clone(), groups.clone())));
        let (stored, live) = matching.split_at(cut.min(matching.len()));
        let [mut series, rest] = [stored, live].map(|records| {
            let mut series = new();
            records.iter().for_each(|record| series.absorb(record, filter.opening()));
            series
        });
        series.merge(&rest);

        let expect = |line: &Line, wanted: &dyn Fn(&Record) -> bool| {
            let of_line: Vec<_> = matching.iter().copied().filter(|record| wanted(record)).collect();
            prop_assert_eq!(told(&line.total), slow(&of_line));
            for (start_ms, sum) in &line.points {
                let end_ms = start_ms + step.ms();
                let inside = |record: &&&Record| {
                    (*start_ms..end_ms).contains(&record.window_end_ms)
                };
                let of_step: Vec<_> = of_line.iter().filter(inside).copied().collect();
                prop_assert!(!of_step.is_empty() && start_ms.rem_euclid(step.ms()) == 0);
                prop_assert_eq!(told(sum), slow(&of_step));
            }
            let in_steps = line.points.values().fold(Counters::default(), |sum, point| {
                sum + point.counters
            });
            prop_assert_eq!(in_steps, line.total.counters, "no record is in no step");
            Ok(())
        };
        let (lines, rest) = series.lines();
        for (port, line) in chosen.iter().zip(lines) {
            expect(line, &|record| record.tuple.remote_port == *port)?;
        }
        expect(rest, &|record| !chosen.contains(&record.tuple.remote_port))?;
        expect(&series.sum(), &|_| true)?;
    }
}
