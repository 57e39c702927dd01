//! The open flows: what of each is already recorded. Record = kernel − ledger.

use std::sync::Arc;

use flowd_common::{
    flow::{CUT, FlowKey, FlowValue, RETIRED},
    peer::{NO_PEER, PeerId},
    policy::Outcome,
};

use crate::{
    dataplane::TimeLine,
    flows::{Counters, EndReason, Entry, Icmp, Initiator, Record, TcpFlags, Timeouts, Tuple},
};

use super::{
    anchors::Anchors, dense::DenseMap, interfaces::Interfaces, peers::Peers, verdicts::Verdicts,
};

/// One open flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) first_seen_ms: i64,
    /// The end of the last record, or the first packet.
    pub(super) window_start_ms: i64,
    /// Cumulative, as far as it is in the store.
    pub(super) recorded: Counters,
    pub(super) peer: PeerId,
    /// It has been retired, and only its last record is missing.
    pub(super) ending: Option<EndReason>,
    /// Not even that: only the entry has to go.
    pub(super) is_closed: bool,
}

impl Open {
    /// The same flow when the store has `record` of it.
    pub(super) fn recorded(self, record: &Record) -> Self {
        Self { recorded: record.total, window_start_ms: record.window_end_ms, ..self }
    }

    /// The same flow when that was its last one, and only the entry has to go.
    pub(super) fn closed(self, record: &Record) -> Self {
        Self { ending: record.end_reason, is_closed: true, ..self.recorded(record) }
    }
}

/// The open flows of which the kernel's entry does not say all: the store has a record of them, or
/// they are ending. Of the others nothing is kept, however many there are.
#[derive(Default)]
pub(super) struct Ledger {
    open: DenseMap<FlowKey, Open>,
    pub(super) anchors: Anchors,
}

impl Ledger {
    /// What is known of a flow that the kernel has.
    pub(super) fn open(&self, key: &FlowKey, value: &FlowValue, peers: &Peers) -> Open {
        let Self { open, anchors } = self;
        open.get(key).copied().unwrap_or_else(|| {
            let first_seen_ms = anchors.first_seen_ms(value.first_seen_ns);
            let peer = match value.peer_id {
                NO_PEER => peers.owner(key.ifindex, key.peer.into()),
                id => id,
            };
            Open {
                first_seen_ms,
                window_start_ms: first_seen_ms,
                recorded: Counters::default(),
                peer,
                ending: None,
                is_closed: false,
            }
        })
    }

    /// The entry of a flow, if it has been seen.
    pub(super) fn get(&self, key: &FlowKey) -> Option<&Open> {
        self.open.get(key)
    }

    /// Remembers what the kernel's entry does not say.
    pub(super) fn keep(&mut self, key: &FlowKey, open: Open) {
        self.open.insert(*key, open);
    }

    /// Forgets a flow whose last record is in the store.
    pub(super) fn close(&mut self, key: &FlowKey) {
        self.open.remove(key);
    }

    /// How many flows it remembers something of.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

/// Cumulative counters of an entry.
pub(super) fn total(value: &FlowValue) -> Counters {
    let FlowValue { rx_packets, rx_bytes, tx_packets, tx_bytes, .. } = *value;
    Counters { rx_packets, rx_bytes, tx_packets, tx_bytes }
}

/// The endpoints of a flow.
pub(super) fn tuple(key: &FlowKey) -> Tuple {
    Tuple {
        protocol: key.protocol,
        peer_addr: key.peer.into(),
        remote_addr: key.remote.into(),
        peer_port: key.peer_port,
        remote_port: key.remote_port,
    }
}

/// What is in the store of a flow that `record` says more of; `None`: nothing.
pub(super) fn restated(mut record: Record, recorded: Counters) -> Option<Record> {
    record.window_end_ms = record.window_start_ms;
    (record.counters, record.total) = (Counters::default(), recorded);
    (recorded != Counters::default()).then_some(record)
}

/// What the ledger in the store knows an entry by.
pub(super) fn entry(key: &FlowKey, value: &FlowValue) -> Entry {
    Entry { ifindex: key.ifindex, generation: key.generation, started_ns: value.first_seen_ns }
}

/// What a walk over the kernel's table needs in order to judge and describe its entries.
pub(super) struct View<'a> {
    pub(super) line: TimeLine,
    pub(super) peers: &'a Peers,
    pub(super) interfaces: &'a Interfaces,
    pub(super) verdicts: &'a Verdicts,
}

impl View<'_> {
    /// Unix milliseconds of the last packet, not before the first one.
    pub(super) fn last_seen_ms(&self, value: &FlowValue, open: &Open) -> i64 {
        self.line.jiffies_ms(value.last_seen_jiffies).max(open.first_seen_ms)
    }

    /// Why the flow has ended, if it has.
    pub(super) fn end(
        &self,
        key: &FlowKey,
        value: &FlowValue,
        open: &Open,
        timeouts: &Timeouts,
    ) -> Option<EndReason> {
        if open.ending.is_some() {
            return open.ending;
        }
        if value.marks & RETIRED != 0 && value.marks & CUT != 0 {
            return Some(EndReason::Policy);
        }
        if !self.interfaces.is_attached(key.ifindex) {
            return Some(EndReason::InterfaceRemoved);
        }
        let flags = TcpFlags { rx: value.rx_tcp_flags(), tx: value.tx_tcp_flags() };
        let quiet_ms = self.line.wall_ms() - self.last_seen_ms(value, open);
        let denied = value.judgement.outcome() != Outcome::Allowed;
        let end = timeouts.end(key.protocol, flags, denied, quiet_ms);
        // Retired by a daemon that did not come to record it, and took the reason along.
        let is_retired = value.marks & RETIRED != 0;
        end.or(is_retired.then_some(EndReason::Idle))
    }

    /// Whether the flow's peer has lost its address; a peer that has only now got it gets the flow.
    pub(super) fn reassess(&self, key: &FlowKey, open: &mut Open) -> Option<EndReason> {
        let owner = self.peers.owner(key.ifindex, key.peer.into());
        if open.peer == NO_PEER {
            open.peer = owner;
        }
        (open.peer != owner).then_some(EndReason::PeerRemoved)
    }

    /// What the flow did since its last record: the record to be, without a number.
    pub(super) fn record(
        &self,
        key: &FlowKey,
        value: &FlowValue,
        open: &Open,
        end_reason: Option<EndReason>,
    ) -> Record {
        let tuple = tuple(key);
        let total = total(value);
        let counters = total - open.recorded;
        let last_seen_ms = self.last_seen_ms(value, open);
        let still_busy = end_reason.is_none() && counters != Counters::default();
        let window_end_ms = if still_busy { self.line.wall_ms() } else { last_seen_ms };
        let told = self.verdicts.tell(value.judgement);
        let icmp = matches!(key.protocol, 1 | 58)
            .then_some(Icmp { r#type: value.icmp_type, code: value.icmp_code });
        Record {
            record_id: 0,
            interface: self.interface_name(key.ifindex),
            entry: entry(key, value),
            tuple,
            window_start_ms: open.window_start_ms,
            window_end_ms: window_end_ms.max(open.window_start_ms),
            first_seen_ms: open.first_seen_ms,
            last_seen_ms,
            initiator: Initiator::from_number(value.initiator).unwrap_or(Initiator::Unknown),
            icmp,
            peer: self.peers.identity(open.peer),
            remote_peer: self.peers.resident(key.ifindex, tuple.remote_addr),
            peer_resource: self.verdicts.resource(tuple.peer_addr),
            remote_resource: self.verdicts.resource(tuple.remote_addr),
            verdict: told.verdict,
            enforced: told.enforced,
            rule: told.rule,
            policy_revision: told.revision,
            counters,
            total,
            tcp_flags: TcpFlags { rx: value.rx_tcp_flags(), tx: value.tx_tcp_flags() },
            end_reason,
            overflow: false,
        }
    }

    pub(super) fn interface_name(&self, ifindex: u32) -> Arc<str> {
        let name = self.interfaces.name(ifindex);
        name.unwrap_or_else(|| format!("ifindex {ifindex}").into())
    }
}

#[cfg(test)]
mod tests {
    use flowd_common::{clock::Clocks, flow::FlowKey};
    use proptest::prelude::*;

    use super::{
        Counters, EndReason, FlowValue, Interfaces, Ledger, Peers, Record, TimeLine, Verdicts,
        View, total,
    };
    use crate::policy::parse;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Packets arrive, each of 100 bytes, and time goes by.
        Grow { rx: u64, tx: u64, ms: u64 },
        /// The flow is due; the store takes the record, or not.
        Due { committed: bool },
        /// The flow ends; the store takes the record, or not.
        End { committed: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..50, 0_u64..50, 1_u64..5_000)
                .prop_map(|(rx, tx, ms)| Step::Grow { rx, tx, ms }),
            3 => any::<bool>().prop_map(|committed| Step::Due { committed }),
            1 => any::<bool>().prop_map(|committed| Step::End { committed }),
        ]
    }

    const START: Clocks = Clocks { monotonic_ns: 1_000_000_000, jiffies: 1_000 };

    fn line(now_ms: u64) -> TimeLine {
        let now = Clocks {
            monotonic_ns: START.monotonic_ns + now_ms * 1_000_000,
            jiffies: START.jiffies + now_ms / 10,
        };
        TimeLine::new(START, now, now_ms as i64).unwrap()
    }

    fn anchored() -> Ledger {
        let mut ledger = Ledger::default();
        let (place, anchor) = ledger.anchors.outdated(&line(200)).unwrap();
        ledger.anchors.note(place, anchor);
        ledger
    }

    fn check(records: &[Record], kernel: &FlowValue) {
        let mut sum = Counters::default();
        for (record, before) in
            records.iter().zip([None].into_iter().chain(records.iter().map(Some)))
        {
            sum += record.counters;
            assert_eq!(record.total, sum, "a total is the sum of the windows so far");
            let start = before.map_or(record.first_seen_ms, |before| before.window_end_ms);
            assert_eq!(record.window_start_ms, start, "windows leave no hole");
            assert!(record.window_end_ms >= record.window_start_ms);
        }
        assert_eq!(sum, total(kernel), "nothing lost, nothing doubled");
        for since_ms in records.iter().flat_map(|r| [r.window_end_ms, r.window_end_ms + 1]) {
            let in_range: Vec<_> =
                records.iter().filter(|record| since_ms <= record.window_end_ms).collect();
            let openers = in_range.iter().filter(|record| record.opens_range(since_ms)).count();
            assert_eq!(openers, usize::from(!in_range.is_empty()), "a flow is counted once");
        }
    }

    #[test]
    fn a_record_has_the_names_that_resources_have_when_it_is_written() {
        let addr = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().into();
        let key = FlowKey {
            peer: addr("::ffff:10.8.0.2"),
            remote: addr("::ffff:10.0.0.7"),
            protocol: 17,
            ..FlowKey::default()
        };
        let kernel = FlowValue { first_seen_ns: START.monotonic_ns, ..FlowValue::default() };
        let (peers, interfaces) = (Peers::default(), Interfaces::default());
        let (line, ledger) = (line(200), anchored());
        let open = ledger.open(&key, &kernel, &peers);
        let cases = [
            // resources, at the peer's side, at the other
            ("", None, None),
            ("[resources]\ndb = ['10.0.0.7']\n", None, Some("db")),
            ("[resources]\nall = ['10.0.0.0/8']\ndb = ['10.0.0.0/24']", Some("all"), Some("db")),
            ("[resources]\nvpn = ['10.8.0.0/24', '::/0']\n", Some("vpn"), None),
        ];
        for (text, inside, outside) in cases {
            let mut verdicts = Verdicts::default();
            verdicts.resources = parse(text, None).unwrap().policy.resource_names();
            let view = View { line, peers: &peers, interfaces: &interfaces, verdicts: &verdicts };
            let record = view.record(&key, &kernel, &open, None);
            let names = (record.peer_resource.as_deref(), record.remote_resource.as_deref());
            assert_eq!(names, (inside, outside), "{text}");
        }
    }

    proptest! {
        #[test]
        fn records_add_up_to_the_kernel_whatever_fails(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let key = FlowKey { protocol: 17, ..FlowKey::default() };
            let mut kernel = FlowValue {
                first_seen_ns: START.monotonic_ns + 100_000_000,
                last_seen_jiffies: START.jiffies + 10,
                rx_packets: 1,
                rx_bytes: 100,
                ..FlowValue::default()
            };
            let (peers, interfaces) = (Peers::default(), Interfaces::default());
            let verdicts = Verdicts::default();
            let mut ledger = anchored();
            let mut records = Vec::new();
            let mut now_ms = 200;
            // However it went, the store takes the last record in the end.
            for step in steps.into_iter().chain([Step::End { committed: true }]) {
                let line = line(now_ms);
                let view = View { line, peers: &peers, interfaces: &interfaces, verdicts: &verdicts };
                let open = ledger.open(&key, &kernel, &peers);
                let (end, committed) = match step {
                    Step::Grow { rx, tx, ms } => {
                        now_ms += ms;
                        kernel.rx_packets += rx;
                        kernel.rx_bytes += rx * 100;
                        kernel.tx_packets += tx;
                        kernel.tx_bytes += tx * 100;
                        kernel.last_seen_jiffies = START.jiffies + now_ms / 10;
                        continue;
                    }
                    Step::Due { committed } => (None, committed && total(&kernel) != open.recorded),
                    Step::End { committed } => (Some(EndReason::Idle), committed),
                };
                if committed {
                    let record = view.record(&key, &kernel, &open, end);
                    ledger.keep(&key, open.recorded(&record));
                    records.push(record);
                }
                if end.is_some() && committed {
                    ledger.close(&key);
                    break;
                }
            }
            check(&records, &kernel);
            prop_assert_eq!(ledger.len(), 0);
        }
    }
}
