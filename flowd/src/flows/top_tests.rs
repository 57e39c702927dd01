use proptest::prelude::*;

use super::{By, Grouping, Key, Order, Ranking, Sort};
use crate::flows::{Counters, Initiator, Record, Summary, Tuple, Verdict, protocol_name, sample};

#[test]
fn every_word_means_itself() {
    for by in By::ALL {
        assert_eq!(By::from_word(by.word()), Some(by));
        assert_eq!(serde_json::to_value(by).unwrap(), by.word());
    }
    for sort in Sort::ALL {
        assert_eq!(Sort::from_word(sort.word()), Some(sort));
        assert_eq!(serde_json::to_value(sort).unwrap(), sort.word());
    }
    assert_eq!((By::from_word("Peer"), Sort::from_word("")), (None, None));
}

#[test]
fn a_record_has_one_key_of_each_kind() {
    let from_outside = Record {
        initiator: Initiator::Remote,
        rule: Some("web".into()),
        verdict: Verdict::Deny,
        peer: Some(sample::peer("bob", None)),
        ..sample::record()
    };
    let ping = Record {
        tuple: Tuple { protocol: 1, peer_port: 77, remote_port: 0, ..sample::record().tuple },
        peer: None,
        ..sample::record()
    };
    let cases = [
        (By::Peer, [Some("alice"), Some("bob"), None, Some("alice")]),
        (By::User, [Some("alice@example.com"), None, None, Some("alice@example.com")]),
        (By::Src, [Some("10.8.0.2"), Some("10.0.0.1"), Some("10.8.0.2"), None]),
        (By::Dst, [Some("10.0.0.1"), Some("10.8.0.2"), Some("10.0.0.1"), None]),
        (By::DstPort, [Some("443"), Some("40000"), None, None]),
        (By::Protocol, [Some("tcp"), Some("tcp"), Some("icmp"), None]),
        (By::Rule, [None, Some("web"), None, None]),
        (By::Verdict, [Some("allow"), Some("deny"), Some("allow"), Some("allow")]),
    ];
    let records = [sample::record(), from_outside, ping, sample::overflow()];
    for (by, expected) in cases {
        for (record, expected) in records.iter().zip(expected) {
            let key = by.key(record).map(|key| key.to_string());
            assert_eq!(key.as_deref(), expected, "{by:?}");
        }
    }
}

#[test]
fn equals_stand_in_the_order_of_their_keys() {
    let mut ranking = Ranking::new(By::DstPort);
    for port in [8080, 443, 53] {
        let tuple = Tuple { remote_port: port, ..sample::record().tuple };
        ranking.absorb(&Record { tuple, ..sample::record() }, 0);
    }
    ranking.absorb(&sample::overflow(), 0);
    let keys = |limit| -> Vec<_> {
        let (rows, _) = ranking.clone().first(limit, Sort::Bytes, Order::Descending);
        let text = |key: &Option<Key>| key.as_ref().map_or("none".into(), Key::to_string);
        rows.iter().map(|(group, _)| text(&group.0[0])).collect()
    };
    assert_eq!(keys(10), ["53", "443", "8080", "none"]);
    assert_eq!(keys(2), ["53", "443"]);
    assert_eq!(ranking.groups(), 4);
}

fn record() -> impl Strategy<Value = Record> {
    (
        prop::sample::select(vec![1_u8, 6, 17]),
        (1_u16..4, 1_u16..4),
        prop::sample::select(vec![Initiator::Peer, Initiator::Remote, Initiator::Unknown]),
        prop::sample::select(vec![None, Some("alice"), Some("bob")]),
        prop::sample::select(vec![None, Some("web"), Some("ssh")]),
        any::<bool>(),
        prop::bool::weighted(0.2),
        (0_u64..3, 0_u64..3),
        (any::<bool>(), -5_i64..5),
    )
        .prop_map(
            |(protocol, ports, initiator, peer, rule, denied, overflow, packets, window)| {
                let (peer_port, remote_port) = ports;
                let (rx_packets, tx_packets) = packets;
                let counters = Counters {
                    rx_packets,
                    rx_bytes: rx_packets * 60,
                    tx_packets,
                    tx_bytes: tx_packets * 1_420,
                };
                let (only, window_start_ms) = window;
                let before = Counters { tx_packets: 1, ..Counters::default() };
                let tuple = Tuple { protocol, peer_port, remote_port, ..sample::record().tuple };
                Record {
                    tuple: if overflow { Tuple::NONE } else { tuple },
                    initiator,
                    peer: peer.map(|name| sample::peer(name, (name == "bob").then_some("b"))),
                    rule: rule.filter(|_| !overflow).map(Into::into),
                    verdict: if denied { Verdict::Deny } else { Verdict::Allow },
                    overflow,
                    counters,
                    total: if only { counters } else { counters + before },
                    window_start_ms,
                    ..sample::record()
                }
            },
        )
}

/// The specification: the key as text, and every record looked at once for each key.
fn slow_key(by: By, record: &Record) -> Option<String> {
    let tuple = &record.tuple;
    let remote_first = record.initiator == Initiator::Remote;
    match by {
        By::Verdict => return Some(record.verdict.word().to_owned()),
        By::Peer => return record.peer.as_ref().map(|peer| peer.name.clone()),
        By::User => return record.peer.as_ref().and_then(|peer| peer.user.clone()),
        By::Rule => return record.rule.as_ref().map(ToString::to_string),
        _ if record.overflow => return None,
        By::DstPort if !tuple.has_ports() => return None,
        _ => {}
    }
    Some(match (by, remote_first) {
        (By::Src, false) | (By::Dst, true) => tuple.peer_ip().to_string(),
        (By::Src, true) | (By::Dst, false) => tuple.remote_ip().to_string(),
        (By::DstPort, false) => tuple.remote_port.to_string(),
        (By::DstPort, true) => tuple.peer_port.to_string(),
        _ => protocol_name(tuple.protocol),
    })
}

type Row = (Vec<Option<String>>, Summary);

fn slow(by: &[By], records: &[Record], since_ms: i64) -> Vec<Row> {
    let slow_keys =
        |record: &Record| -> Vec<_> { by.iter().map(|by| slow_key(*by, record)).collect() };
    let mut keys: Vec<_> = records.iter().map(slow_keys).collect();
    keys.sort();
    keys.dedup();
    let sum = |key: &Vec<Option<String>>| {
        let mut sum = Summary::default();
        for record in records.iter().filter(|record| slow_keys(record) == *key) {
            sum.absorb(record, since_ms);
        }
        sum
    };
    keys.into_iter().map(|key| (key.clone(), sum(&key))).collect()
}

proptest! {
    #[test]
    fn a_ranking_is_the_slow_twins(
        records in prop::collection::vec(record(), 0..40),
        cut in 0_usize..40,
        by in prop::sample::subsequence(By::ALL.to_vec(), 1..4),
        order in prop::sample::select(vec![Order::Descending, Order::Ascending]),
        sort in prop::sample::select(Sort::ALL.to_vec()),
        since_ms in -5_i64..5,
        limit in 1_usize..6,
    ) {
        let words: Vec<_> = by.iter().map(|by| by.word()).collect();
        let grouping: Grouping = words.join(",").parse().unwrap();
        let (stored, live) = records.split_at(cut.min(records.len()));
        let [mut ranking, rest] = [stored, live].map(|records| {
            let mut ranking = Ranking::new(grouping.clone());
            for record in records {
                ranking.absorb(record, since_ms);
            }
            ranking
        });
        ranking.merge(rest);

        let expected = slow(&by, &records, since_ms);
        let mut total = Summary::default();
        for record in &records {
            total.absorb(record, since_ms);
        }
        prop_assert_eq!(ranking.total(), total);
        prop_assert_eq!(ranking.groups(), expected.len());

        let value = |sum: &Summary| match sort {
            Sort::Bytes => sum.counters.rx_bytes + sum.counters.tx_bytes,
            Sort::Packets => sum.counters.rx_packets + sum.counters.tx_packets,
            Sort::Flows => sum.flows,
        };
        let (rows, mut sum) = ranking.first(limit, sort, order);
        prop_assert_eq!(rows.len(), limit.min(expected.len()));
        for pair in rows.windows(2) {
            let (one, next) = (value(&pair[0].1), value(&pair[1].1));
            prop_assert!(order.apply(one.cmp(&next)).is_le());
        }
        rows.iter().for_each(|(_, row)| sum.merge(row));
        prop_assert_eq!(sum, total, "the rows and the rest are the whole");
        let text = |key: &Option<Key>| key.as_ref().map(Key::to_string);
        let shown: Vec<Row> =
            rows.iter().map(|(group, sum)| (group.0.iter().map(text).collect(), *sum)).collect();
        for row in &shown {
            prop_assert!(expected.contains(row));
        }
        if let Some((_, last)) = shown.last() {
            for (_, other) in expected.iter().filter(|row| !shown.contains(row)) {
                prop_assert!(order.apply(value(last).cmp(&value(other))).is_le());
            }
        }
    }
}
