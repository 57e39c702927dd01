//! How a reader of the store has a generated record.

use std::sync::Arc;

use flowd::{
    chunk::{NameId, Row},
    flows::{Entry, Identity, Record},
};

use super::generate::PEERS;

/// What the numbers stand for.
pub(super) struct Names {
    interface: Arc<str>,
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
        Self {
            interface: "wg0".into(),
            peers: (0..=PEERS).map(peer).collect(),
            others: (0..=64).map(name).collect(),
        }
    }

    pub(super) fn record(&self, row: &Row) -> Record {
        let peer = |id: NameId| id.map(|id| self.peers[id.get() as usize].clone());
        let name = |id: NameId| id.map(|id| self.others[id.get() as usize].clone());
        Record {
            // The store numbers them, as it does here.
            record_id: row.record_id,
            interface: self.interface.clone(),
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
