//! A generated record, and how a reader of the store has it.

use std::{num::NonZeroU32, sync::Arc};

use flowd::flows::{
    Counters, EndReason, Entry, Icmp, Identity, Initiator, Record, TcpFlags, Tuple, Verdict,
};

use super::generate::PEERS;

/// A number that stands for a name.
type NameId = Option<NonZeroU32>;

/// A record with numbers for its names; [`Record`] says what the fields mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) record_id: u64,
    pub(super) interface: u32,
    pub(super) peer: NameId,
    pub(super) remote_peer: NameId,
    pub(super) peer_resource: NameId,
    pub(super) remote_resource: NameId,
    pub(super) rule: NameId,
    pub(super) tuple: Tuple,
    pub(super) window_start_ms: i64,
    pub(super) window_end_ms: i64,
    pub(super) first_seen_ms: i64,
    pub(super) last_seen_ms: i64,
    pub(super) initiator: Initiator,
    pub(super) icmp: Option<Icmp>,
    pub(super) verdict: Verdict,
    pub(super) enforced: bool,
    pub(super) policy_revision: u32,
    pub(super) counters: Counters,
    pub(super) total: Counters,
    pub(super) tcp_flags: TcpFlags,
    pub(super) end_reason: Option<EndReason>,
    pub(super) overflow: bool,
}

/// What the numbers stand for.
pub(super) struct Names {
    peers: Vec<Arc<Identity>>,
    others: Vec<Arc<str>>,
}

impl Names {
    pub(super) fn new() -> Self {
        let peer = |number: usize| {
            Arc::new(Identity {
                public_key: format!("{:A<43}=", format!("peer{number}x")),
                name: format!("peer-{number}"),
                user: Some(format!("user-{}@example.com", number / 2)),
                device: Some("laptop".to_owned()),
                groups: vec![format!("team-{}", number % 20)],
                endpoint: format!("198.51.100.{}:51820", number % 250).parse().ok(),
            })
        };
        let name = |number: usize| format!("name-{number}").into();
        Self { peers: (0..=PEERS).map(peer).collect(), others: (0..=64).map(name).collect() }
    }

    pub(super) fn record(&self, row: &Row) -> Record {
        let peer = |id: NameId| id.map(|id| self.peers[id.get() as usize].clone());
        let name = |id: NameId| id.map(|id| self.others[id.get() as usize].clone());
        Record {
            // The store numbers them, as it does here.
            record_id: row.record_id,
            interface: format!("wg{}", row.interface - 1).into(),
            entry: Entry::default(),
            tuple: row.tuple,
            window_start_ms: row.window_start_ms,
            window_end_ms: row.window_end_ms,
            first_seen_ms: row.first_seen_ms,
            last_seen_ms: row.last_seen_ms,
            initiator: row.initiator,
            icmp: row.icmp,
            peer: peer(row.peer),
            remote_peer: peer(row.remote_peer),
            peer_resource: name(row.peer_resource),
            remote_resource: name(row.remote_resource),
            verdict: row.verdict,
            enforced: row.enforced,
            rule: name(row.rule),
            policy_revision: row.policy_revision,
            counters: row.counters,
            total: row.total,
            tcp_flags: row.tcp_flags,
            end_reason: row.end_reason,
            overflow: row.overflow,
        }
    }
}
