use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Place, RankedPage};
use crate::{
    flows::{EndReason, Filter, Flow, FlowSort, Order, Record, State},
    live::Position,
    store::{
        Leaving, Reader, Writer,
        reader::tests::{filter, life, records_of},
        step_tests::compact,
    },
};

/// The specification: every flow of the records that match, sorted.
fn slow(records: &[Record], filter: &Filter, page: &RankedPage) -> Vec<(Place, Flow)> {
    let has_ended = |position: &Position| {
        let of_flow = |record: &&Record| Position::of(record) == *position;
        records.iter().filter(of_flow).any(|record| record.overflow || record.end_reason.is_some())
    };
    let mut flows: BTreeMap<Position, Flow> = BTreeMap::new();
    for record in records.iter().filter(|record| filter.matches(record)) {
        match flows.get_mut(&Position::of(record)) {
            Some(flow) => flow.absorb(record.clone()),
            None => drop(flows.insert(Position::of(record), Flow::new(record.clone()))),
        }
    }
    flows.retain(|position, _| {
        filter.state.is_none_or(|state| (state == State::Closed) == has_ended(position))
    });
    let mut rows: Vec<_> = flows
        .into_iter()
        .map(|(position, flow)| (Place { value: page.sort.value(&flow), position }, flow))
        .filter(|(place, _)| {
            page.after.as_ref().is_none_or(|after| page.order.apply(place.cmp(after)).is_gt())
        })
        .collect();
    rows.sort_by(|(a, _), (b, _)| page.order.apply(a.cmp(b)));
    rows.truncate(page.limit);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Pages of one list, while records arrive between them.
    #[test]
    fn pages_are_the_slow_twins_and_show_what_does_not_change_exactly_once(
        lives in prop::collection::vec(life(), 1..20),
        filter in prop_oneof![Just(Filter::default()), filter()],
        sort in prop::sample::select(FlowSort::ALL.to_vec()),
        order in prop::sample::select(vec![Order::Descending, Order::Ascending]),
        limit in 1_usize..5,
        arrivals in prop::collection::vec(0_usize..12, 20),
        tail_records in 1_u32..20,
    ) {
        let mut records: Vec<Record> =
            (0..).zip(&lives).flat_map(|(number, life)| records_of(number, life)).collect();
        records.sort_by_key(|record| record.window_end_ms);
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let reader = Reader::new(dir.path(), "gw");
        let mut stored = 0;
        let mut arrivals = arrivals.into_iter();
        let mut arrive = |least: usize| {
            let more = arrivals.next().unwrap_or_default().max(least);
            let end = (stored + more).min(records.len());
            if let Some(last) = records[stored..end].last() {
                let now_ms = last.window_end_ms;
                writer.commit(now_ms, &mut records[stored..end], &Leaving::default()).unwrap();
                compact(dir.path(), &mut writer, tail_records, 2);
            }
            stored = end;
            records[..stored].to_vec()
        };

        let mut page = RankedPage { sort, order, after: None, limit };
        let all = RankedPage { limit: usize::MAX, ..page.clone() };
        let mut there = arrive(1);
        let first = slow(&there, &filter, &all);
        let mut shown: Vec<(Place, Flow)> = Vec::new();
        loop {
            let rows = reader.ranked(&filter, page.clone(), Vec::new(), u64::MAX >> 1).unwrap();
            let rows: Vec<_> = rows.into_iter().map(|(place, (flow, _))| (place, flow)).collect();
            prop_assert_eq!(&rows, &slow(&there, &filter, &page));
            let Some((last, _)) = rows.last() else { break };
            page.after = Some(last.clone());
            shown.extend(rows);
            there = arrive(0);
        }
        let last = slow(&there, &filter, &all);
        for pair in shown.windows(2) {
            prop_assert!(order.apply(pair[0].0.cmp(&pair[1].0)).is_lt(), "in order");
        }
        let times = |position: &Position| {
            shown.iter().filter(|(place, _)| place.position == *position).count()
        };
        for (place, _) in &last {
            match times(&place.position) {
                // What grows may come again in ascending order, or be missed in descending order.
                1 => {}
                times => {
                    prop_assert!(!first.iter().any(|(before, _)| before == place), "{times}: {place:?}");
                    prop_assert!(order == Order::Ascending || times == 0, "{times}: {place:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_open_is_sorted_by_what_it_has_done_until_now() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let of_port = |port: u16| {
        let record = crate::flows::sample::record();
        let tuple = crate::flows::Tuple { peer_port: port, ..record.tuple };
        Record { tuple, record_id: 0, ..record }
    };
    let ended = Record { end_reason: Some(EndReason::Fin), ..of_port(1) };
    writer.commit(60_000, &mut [ended, of_port(2)], &Leaving::default()).unwrap();
    // The second flow goes on, a third one has no record yet.
    let more = Record {
        window_start_ms: 60_000,
        window_end_ms: 90_000,
        last_seen_ms: 90_000,
        total: of_port(2).counters + of_port(2).counters,
        ..of_port(2)
    };
    let small = crate::flows::Counters { tx_packets: 1, tx_bytes: 40, ..Default::default() };
    let open = vec![more, Record { counters: small, total: small, ..of_port(3) }];
    let reader = Reader::new(dir.path(), "gw");
    let listed = |sort, order, state, limit| -> Vec<(u16, i64, bool)> {
        let filter = Filter { state, ..Filter::default() };
        let page = RankedPage { sort, order, after: None, limit };
        let open = if state == Some(State::Closed) { Vec::new() } else { open.clone() };
        let rows = reader.ranked(&filter, page, open, 9).unwrap();
        let row = |(place, (flow, is_open)): (Place, (Flow, bool))| {
            (flow.newest.tuple.peer_port, place.value, is_open)
        };
        rows.into_iter().map(row).collect()
    };
    let (down, up) = (Order::Descending, Order::Ascending);
    let all = [(2, 360, true), (1, 180, false), (3, 40, true)];
    assert_eq!(listed(FlowSort::Bytes, down, None, 9), all);
    assert_eq!(listed(FlowSort::Bytes, down, None, 2), all[..2]);
    assert_eq!(listed(FlowSort::Bytes, up, None, 1), all[2..]);
    assert_eq!(listed(FlowSort::Last, down, None, 1), [(2, 90_000, true)]);
    assert_eq!(listed(FlowSort::Bytes, down, Some(State::Closed), 9), all[1..2]);
    assert_eq!(listed(FlowSort::Bytes, down, Some(State::Open), 9), [all[0], all[2]]);
}
