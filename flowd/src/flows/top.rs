//! Who did most: totals by one property of a flow, and the first of them.

use std::{cmp::Reverse, collections::HashMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Opening, Record, Summary, Verdict, protocol_name};

/// What a ranking is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The name that the peer had, whose leg of the tunnel it is.
    Peer,
    /// That peer's user.
    User,
    /// The initiator's address (the peer's side where the initiator is unknown).
    Src,
    /// The other address.
    Dst,
    /// The port at the other address.
    DstPort,
    /// The protocol.
    Protocol,
    /// The rule that decided.
    Rule,
    /// What the policy says.
    Verdict,
}

impl By {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::User,
        Self::Src,
        Self::Dst,
        Self::DstPort,
        Self::Protocol,
        Self::Rule,
        Self::Verdict,
    ];

    /// The word in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::User => "user",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::DstPort => "dst_port",
            Self::Protocol => "protocol",
            Self::Rule => "rule",
            Self::Verdict => "verdict",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.word() == word)
    }

    /// The key of a record; `None` where it has none. Overflow has a peer and a verdict, but speaks
    /// of no endpoints and is decided by no rule.
    fn key(self, record: &Record) -> Option<Key> {
        let tuple = &record.tuple;
        let of_flow = |key: Key| (!record.overflow).then_some(key);
        let (src, dst) = record.initiator.first(tuple.peer_ip(), tuple.remote_ip());
        match self {
            Self::Peer => record.peer.as_ref().map(|peer| Key::Name(peer.name.clone())),
            Self::User => record.peer.as_ref()?.user.clone().map(Key::Name),
            Self::Src => of_flow(Key::Address(src)),
            Self::Dst => of_flow(Key::Address(dst)),
            Self::DstPort => {
                let (_, port) = record.initiator.first(tuple.peer_port, tuple.remote_port);
                of_flow(Key::Port(port)).filter(|_| tuple.has_ports())
            }
            Self::Protocol => of_flow(Key::Protocol(tuple.protocol)),
            Self::Rule => record.rule.as_deref().map(|rule| Key::Name(rule.to_owned())),
            Self::Verdict => Some(Key::Verdict(record.verdict)),
        }
    }
}

/// What a ranking is sorted by, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Bytes of both directions.
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Flows.
    Flows,
}

impl Sort {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Bytes, Self::Packets, Self::Flows];

    /// The word in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flows",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.word() == word)
    }

    fn of(self, sum: &Summary) -> u64 {
        match self {
            Self::Bytes => sum.counters.bytes(),
            Self::Packets => sum.counters.packets(),
            Self::Flows => sum.flows,
        }
    }
}

/// What the records of one row have in common. The order settles ties: addresses and ports stand
/// in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of a peer, a user or a rule.
    Name(String),
    /// Of one end.
    Address(IpAddr),
    /// Of one end.
    Port(u16),
    /// IANA protocol number.
    Protocol(u8),
    /// What the policy says.
    Verdict(Verdict),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(ip) => ip.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Protocol(number) => f.write_str(&protocol_name(*number)),
            Self::Verdict(verdict) => f.write_str(verdict.word()),
        }
    }
}

/// Totals by key; rankings of disjoint sets of records add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    by: By,
    sums: HashMap<Option<Key>, Summary>,
}

impl Ranking {
    /// A ranking of no records.
    pub fn new(by: By) -> Self {
        Self { by, sums: HashMap::new() }
    }

    /// Adds one record of what begins with `opening`. A flow whose key changes in the range (a new
    /// rule, a new name) counts where it was first; its packets count where they were.
    pub fn absorb(&mut self, record: &Record, opening: impl Into<Opening>) {
        self.sums.entry(self.by.key(record)).or_default().absorb(record, opening);
    }

    /// Adds a ranking by the same property of other records.
    pub fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.by, other.by, "peers and ports do not add up");
        for (key, sum) in other.sums {
            self.sums.entry(key).or_default().merge(&sum);
        }
    }

    /// How many keys there are; that there is none counts as one.
    pub fn keys(&self) -> usize {
        self.sums.len()
    }

    /// The totals of every record.
    pub fn total(&self) -> Summary {
        let mut total = Summary::default();
        for sum in self.sums.values() {
            total.merge(sum);
        }
        total
    }

    /// The `limit` rows that have most. Equals stand in the order of their keys, that without one
    /// last.
    pub fn first(self, limit: usize, sort: Sort) -> Vec<(Option<Key>, Summary)> {
        let mut rows: Vec<_> = self.sums.into_iter().collect();
        rows.sort_unstable_by(|(a, left), (b, right)| {
            let place = |sum, key: &Option<Key>| (Reverse(sort.of(sum)), key.is_none());
            place(left, a).cmp(&place(right, b)).then_with(|| a.cmp(b))
        });
        rows.truncate(limit);
        rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{By, Ranking, Sort};
    use crate::flows::{
        Counters, Initiator, Record, Summary, Tuple, Verdict, protocol_name, sample,
    };

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
            let rows = ranking.clone().first(limit, Sort::Bytes);
            rows.into_iter().map(|(key, _)| key.map_or("none".into(), |k| k.to_string())).collect()
        };
        assert_eq!(keys(10), ["53", "443", "8080", "none"]);
        assert_eq!(keys(2), ["53", "443"]);
        assert_eq!(ranking.keys(), 4);
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
                    let tuple =
                        Tuple { protocol, peer_port, remote_port, ..sample::record().tuple };
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

    fn slow(by: By, records: &[Record], since_ms: i64) -> Vec<(Option<String>, Summary)> {
        let mut keys: Vec<_> = records.iter().map(|record| slow_key(by, record)).collect();
        keys.sort();
        keys.dedup();
        let sum = |key: &Option<String>| {
            let mut sum = Summary::default();
            for record in records.iter().filter(|record| slow_key(by, record) == *key) {
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
            by in prop::sample::select(By::ALL.to_vec()),
            sort in prop::sample::select(Sort::ALL.to_vec()),
            since_ms in -5_i64..5,
            limit in 1_usize..6,
        ) {
            let (stored, live) = records.split_at(cut.min(records.len()));
            let [mut ranking, rest] = [stored, live].map(|records| {
                let mut ranking = Ranking::new(by);
                for record in records {
                    ranking.absorb(record, since_ms);
                }
                ranking
            });
            ranking.merge(rest);

            let expected = slow(by, &records, since_ms);
            let mut total = Summary::default();
            for record in &records {
                total.absorb(record, since_ms);
            }
            prop_assert_eq!(ranking.total(), total);
            prop_assert_eq!(ranking.keys(), expected.len());

            let value = |sum: &Summary| match sort {
                Sort::Bytes => sum.counters.rx_bytes + sum.counters.tx_bytes,
                Sort::Packets => sum.counters.rx_packets + sum.counters.tx_packets,
                Sort::Flows => sum.flows,
            };
            let rows = ranking.first(limit, sort);
            prop_assert_eq!(rows.len(), limit.min(expected.len()));
            for pair in rows.windows(2) {
                prop_assert!(value(&pair[0].1) >= value(&pair[1].1));
            }
            let shown: Vec<_> =
                rows.iter().map(|(key, sum)| (key.as_ref().map(|k| k.to_string()), *sum)).collect();
            for row in &shown {
                prop_assert!(expected.contains(row));
            }
            let least = shown.last().map_or(0, |(_, sum)| value(sum));
            for row in &expected {
                prop_assert!(shown.contains(row) || value(&row.1) <= least);
            }
        }
    }
}
