//! The overflow buckets: what the packets did that found the flow table full, per peer.

use std::collections::BTreeMap;

use flowd_common::{
    counter::{Direction, Tally},
    flow::OverflowKey,
    peer::PeerId,
    policy::Outcome,
};

use crate::flows::{Counters, Entry, Initiator, Record, TcpFlags, Tuple, Verdict};

use super::ledger::View;

/// Names both directions of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) ifindex: u32,
    pub(super) peer: PeerId,
    pub(super) outcome: u8,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    first_seen_ms: i64,
    window_start_ms: i64,
    recorded: Counters,
}

/// What of each bucket is already recorded.
#[derive(Default)]
pub(super) struct OverflowLedger {
    open: BTreeMap<Bucket, Open>,
}

/// Both directions of every bucket, cumulative.
pub(super) fn by_bucket(tallies: &[(OverflowKey, Tally)]) -> BTreeMap<Bucket, Counters> {
    let mut buckets: BTreeMap<Bucket, Counters> = BTreeMap::new();
    for (key, tally) in tallies {
        let OverflowKey { ifindex, peer_id, outcome, direction, reserved: _ } = *key;
        let counters = buckets.entry(Bucket { ifindex, peer: peer_id, outcome }).or_default();
        if direction == Direction::Ingress as u8 {
            counters.rx_packets += tally.packets;
            counters.rx_bytes += tally.bytes;
        } else {
            counters.tx_packets += tally.packets;
            counters.tx_bytes += tally.bytes;
        }
    }
    buckets
}

impl OverflowLedger {
    /// What each bucket took since its last record, as records without a number.
    pub(super) fn pending(
        &mut self,
        buckets: &BTreeMap<Bucket, Counters>,
        view: &View<'_>,
    ) -> Vec<(Bucket, Record)> {
        let now_ms = view.line.wall_ms();
        let mut records = Vec::new();
        for (bucket, total) in buckets {
            let open = self.open.entry(*bucket).or_insert(Open {
                first_seen_ms: now_ms,
                window_start_ms: now_ms,
                recorded: Counters::default(),
            });
            if open.recorded == *total {
                continue;
            }
            records.push((*bucket, record(bucket, open, *total, view)));
        }
        records
    }

    /// Whether the bucket's last record is long enough ago.
    pub(super) fn is_due(&self, bucket: &Bucket, now_ms: i64, active_ms: i64) -> bool {
        self.open.get(bucket).is_some_and(|open| {
            open.recorded == Counters::default()
                || (now_ms - open.window_start_ms).abs() >= active_ms
        })
    }

    /// Notes that the store has everything up to `record`.
    pub(super) fn recorded(&mut self, bucket: &Bucket, record: &Record) {
        if let Some(open) = self.open.get_mut(bucket) {
            open.recorded = record.total;
            open.window_start_ms = record.window_end_ms;
        }
    }
}

fn record(bucket: &Bucket, open: &Open, total: Counters, view: &View<'_>) -> Record {
    let now_ms = view.line.wall_ms().max(open.window_start_ms);
    Record {
        record_id: 0,
        interface: view.interface_name(bucket.ifindex),
        entry: Entry { ifindex: bucket.ifindex, ..Entry::default() },
        // Nobody shows these numbers: they keep the buckets of one instant apart.
        tuple: Tuple {
            protocol: bucket.outcome,
            peer_port: (bucket.peer >> 16) as u16,
            remote_port: bucket.peer as u16,
            ..Tuple::NONE
        },
        window_start_ms: open.window_start_ms,
        window_end_ms: now_ms,
        first_seen_ms: open.first_seen_ms,
        last_seen_ms: now_ms,
        initiator: Initiator::Unknown,
        icmp: None,
        peer: view.peers.identity(bucket.peer),
        remote_peer: None,
        peer_resource: None,
        remote_resource: None,
        verdict: if bucket.outcome == Outcome::Allowed as u8 {
            Verdict::Allow
        } else {
            Verdict::Deny
        },
        enforced: bucket.outcome == Outcome::Dropped as u8,
        rule: None,
        policy_revision: view.verdicts.revision(),
        counters: total - open.recorded,
        total,
        tcp_flags: TcpFlags::default(),
        end_reason: None,
        overflow: true,
    }
}
