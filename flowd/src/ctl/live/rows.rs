//! Flows and peers with their rates, in an order, and whether a text finds them.

use std::cmp::Ordering;

use crate::{
    ctl::text,
    flows::{Counters, FlowId, Order, RateSort, Verdict},
    wire::{self, FlowRate, PeerRate},
};

/// What a row is of: the selection keeps to it, wherever the row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowKey {
    /// An open flow.
    Flow(FlowId),
    /// Interface and public key.
    Peer(String, String),
}

/// A row that is listed.
#[derive(Clone, Debug)]
pub(super) struct Row<T> {
    pub(super) key: RowKey,
    pub(super) what: T,
    /// In a second; `None`: nobody knows yet.
    pub(super) rate: Option<Counters>,
    /// What a text is looked for in, in lower case.
    words: String,
}

/// What was moved in some milliseconds, in a second.
pub(super) fn a_second(moved: Counters, interval_ms: Option<u64>) -> Option<Counters> {
    let interval_ms = interval_ms.filter(|ms| *ms > 0)?;
    let rate = |count: u64| (u128::from(count) * 1_000 / u128::from(interval_ms)) as u64;
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = moved;
    Some(Counters {
        rx_packets: rate(rx_packets),
        rx_bytes: rate(rx_bytes),
        tx_packets: rate(tx_packets),
        tx_bytes: rate(tx_bytes),
    })
}

impl Row<FlowRate> {
    pub(super) fn flow(flow: FlowRate, interval_ms: Option<u64>) -> Self {
        let record = &flow.record;
        let ends = [&record.src, &record.dst];
        let mut words = vec![
            record.protocol.as_str(),
            record.verdict.word(),
            record.rule.as_deref().unwrap_or_default(),
            &record.interface,
        ];
        words.extend(record.peer.iter().flat_map(identity_words));
        words
            .extend(ends.iter().flat_map(|end| [&end.peer, &end.resource]).flatten().map(|s| &**s));
        let mut words = words.join("\n");
        for end in ends {
            words.push('\n');
            words.push_str(&text::endpoint(end));
        }
        Self {
            key: RowKey::Flow(record.flow_id),
            rate: a_second(flow.moved, interval_ms),
            words: words.to_lowercase(),
            what: flow,
        }
    }

    fn compare(&self, other: &Self, sort: RateSort, order: Order) -> Ordering {
        let value = |row: &Self| match sort {
            RateSort::Total => row.what.record.total.bytes(),
            RateSort::Start => row.what.record.first_seen.0.unsigned_abs(),
            RateSort::Last => row.what.record.last_seen.0.unsigned_abs(),
            RateSort::Rate | RateSort::Rx | RateSort::Tx | RateSort::Packets => {
                of_moved(sort, row.what.moved)
            }
        };
        let tie = |row: &Self| (row.what.record.last_seen, row.what.record.flow_id);
        order.apply(value(self).cmp(&value(other))).then_with(|| tie(other).cmp(&tie(self)))
    }
}

impl Row<PeerRate> {
    pub(super) fn peer(peer: PeerRate, interval_ms: Option<u64>) -> Self {
        let key = peer.peer.as_ref().map_or("", |peer| &peer.public_key);
        let mut words =
            vec![peer.interface.as_str(), if peer.denied_flows > 0 { "deny" } else { "" }];
        words.extend(peer.peer.iter().flat_map(identity_words));
        Self {
            key: RowKey::Peer(peer.interface.clone(), key.to_owned()),
            rate: a_second(peer.moved, interval_ms),
            words: words.join("\n").to_lowercase(),
            what: peer,
        }
    }

    fn compare(&self, other: &Self, sort: RateSort, order: Order) -> Ordering {
        fn name(row: &Row<PeerRate>) -> (Option<&str>, &str) {
            (row.what.peer.as_ref().map(|peer| &*peer.name), &row.what.interface)
        }
        let value = |row: &Self| of_moved(sort, row.what.moved);
        order.apply(value(self).cmp(&value(other))).then_with(|| name(self).cmp(&name(other)))
    }
}

/// Something that is sorted by its rate.
pub(super) trait Sorted {
    /// Puts rows into an order.
    fn sort(rows: &mut [Self], by: RateSort, order: Order)
    where
        Self: Sized;
}

impl Sorted for Row<FlowRate> {
    fn sort(rows: &mut [Self], by: RateSort, order: Order) {
        rows.sort_by(|a, b| a.compare(b, by, order));
    }
}

impl Sorted for Row<PeerRate> {
    fn sort(rows: &mut [Self], by: RateSort, order: Order) {
        rows.sort_by(|a, b| a.compare(b, by, order));
    }
}

impl<T> Row<T> {
    /// Whether every word of a text, which is in lower case, is in the row.
    pub(super) fn has(&self, text: &str) -> bool {
        text.split_whitespace().all(|word| self.words.contains(word))
    }
}

fn of_moved(sort: RateSort, moved: Counters) -> u64 {
    match sort {
        RateSort::Rx => moved.rx_bytes,
        RateSort::Tx => moved.tx_bytes,
        RateSort::Packets => moved.packets(),
        RateSort::Rate | RateSort::Total | RateSort::Start | RateSort::Last => moved.bytes(),
    }
}

fn identity_words(peer: &crate::flows::Identity) -> impl Iterator<Item = &str> {
    let some = [Some(&peer.name), peer.user.as_ref(), peer.device.as_ref()];
    some.into_iter().flatten().map(String::as_str)
}

/// The verdict in one word; in brackets where what is denied passed.
pub(super) fn verdict(record: &wire::Record) -> &'static str {
    match (record.verdict, record.enforced) {
        (Verdict::Allow, _) => "allow",
        (Verdict::Deny, true) => "deny",
        (Verdict::Deny, false) => "(deny)",
    }
}
