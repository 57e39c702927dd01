//! The overflow buckets: what the packets did that found the flow table full, per peer.

use std::collections::BTreeMap;

use flowd_common::{
    counter::{Direction, Tally},
    flow::OverflowKey,
    peer::PeerId,
    policy::Outcome,
};

use crate::{
    flows::{Counters, Entry, Initiator, Record, TcpFlags, Tuple, Verdict},
    store::EntryId,
};

use super::ledger::{View, restated};

/// Names both directions of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) ifindex: u32,
    pub(super) peer: PeerId,
    pub(super) outcome: u8,
}

/// What of a bucket is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenBucket {
    pub(super) first_seen_ms: i64,
    pub(super) window_start_ms: i64,
    pub(super) recorded: Counters,
}

/// What of each bucket is already recorded.
#[derive(Default)]
pub(super) struct OverflowLedger {
    open: BTreeMap<Bucket, OpenBucket>,
    /// The number of the kernel's tables: buckets of others are others.
    tables: u32,
}

impl OpenBucket {
    /// One that nothing is recorded of.
    pub(super) fn begun(now_ms: i64) -> Self {
        let recorded = Counters::default();
        Self { first_seen_ms: now_ms, window_start_ms: now_ms, recorded }
    }
}

impl Bucket {
    /// What the store's ledger knows it by.
    pub(super) fn id(&self, tables: u32) -> EntryId {
        let Self { ifindex, peer, outcome } = *self;
        // Nobody shows these numbers.
        let tuple = Tuple {
            protocol: outcome,
            peer_port: (peer >> 16) as u16,
            remote_port: peer as u16,
            ..Tuple::NONE
        };
        (tuple, Entry { ifindex, generation: 0, started_ns: tables.into() })
    }
}

/// Both directions of every bucket, cumulative.
pub(super) fn by_bucket(tallies: &[(OverflowKey, Tally)]) -> BTreeMap<Bucket, Counters> {
    let mut buckets: BTreeMap<Bucket, Counters> = BTreeMap::new();
    for (key, tally) in tallies {
        let OverflowKey { ifindex, peer_id, outcome, direction, reserved: _ } = *key;
        let bucket = Bucket { ifindex, peer: peer_id, outcome };
        *buckets.entry(bucket).or_default() += one_way(direction, tally);
    }
    buckets
}

/// A tally of one direction.
pub(super) fn one_way(direction: u8, tally: &Tally) -> Counters {
    let Tally { packets, bytes } = *tally;
    if direction == Direction::Ingress as u8 {
        Counters { rx_packets: packets, rx_bytes: bytes, ..Counters::default() }
    } else {
        Counters { tx_packets: packets, tx_bytes: bytes, ..Counters::default() }
    }
}

impl OverflowLedger {
    /// None yet, in the kernel's tables of this number.
    pub(super) fn of(tables: u32) -> Self {
        Self { tables, ..Self::default() }
    }

    /// What the store's ledger knows a bucket by.
    pub(super) fn id(&self, bucket: &Bucket) -> EntryId {
        bucket.id(self.tables)
    }

    /// Takes a bucket as the daemon before left it in the store.
    pub(super) fn restore(&mut self, bucket: Bucket, open: OpenBucket) {
        self.open.insert(bucket, open);
    }

    /// What each bucket took since its last record, as records without a number.
    pub(super) fn pending(
        &mut self,
        buckets: &BTreeMap<Bucket, Counters>,
        view: &View<'_>,
    ) -> Vec<(Bucket, Record)> {
        let now_ms = view.line.wall_ms();
        let mut records = Vec::new();
        for (bucket, total) in buckets {
            let open = self.open.entry(*bucket).or_insert(OpenBucket::begun(now_ms));
            if open.recorded == *total {
                continue;
            }
            records.push((*bucket, record(bucket, self.tables, open, *total, view)));
        }
        records
    }

    /// What the buckets took since their last records, by interface.
    pub(super) fn unrecorded(
        &self,
        buckets: &BTreeMap<Bucket, Counters>,
    ) -> BTreeMap<u32, Counters> {
        let mut unrecorded: BTreeMap<u32, Counters> = BTreeMap::new();
        for (bucket, total) in buckets {
            let recorded = self.open.get(bucket).map_or_else(Counters::default, |o| o.recorded);
            *unrecorded.entry(bucket.ifindex).or_default() += *total - recorded;
        }
        unrecorded
    }

    /// Whether the bucket's last record is long enough ago.
    pub(super) fn is_due(&self, bucket: &Bucket, now_ms: i64, active_ms: i64) -> bool {
        self.open.get(bucket).is_some_and(|open| {
            open.recorded == Counters::default()
                || (now_ms - open.window_start_ms).abs() >= active_ms
        })
    }

    /// What is in the store of every bucket.
    pub(super) fn recorded_so_far(&self, view: &View<'_>) -> Vec<Record> {
        let all = self.open.iter();
        all.filter_map(|(bucket, open)| {
            restated(record(bucket, self.tables, open, open.recorded, view), open.recorded)
        })
        .collect()
    }

    /// Notes that the store has everything up to `record`.
    pub(super) fn recorded(&mut self, bucket: &Bucket, record: &Record) {
        if let Some(open) = self.open.get_mut(bucket) {
            open.recorded = record.total;
            open.window_start_ms = record.window_end_ms;
        }
    }
}

/// What a bucket took since its last record.
pub(super) fn record(
    bucket: &Bucket,
    tables: u32,
    open: &OpenBucket,
    total: Counters,
    view: &View<'_>,
) -> Record {
    let (tuple, entry) = bucket.id(tables);
    let now_ms = view.line.wall_ms().max(open.window_start_ms);
    Record {
        record_id: 0,
        interface: view.interface_name(bucket.ifindex),
        entry,
        tuple,
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
