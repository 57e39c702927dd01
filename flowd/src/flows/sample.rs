//! Records for tests.

use std::sync::Arc;

use super::{Counters, Entry, Identity, Initiator, Record, TcpFlags, Tuple, Verdict};

/// A peer of this name.
pub(crate) fn peer(name: &str, user: Option<&str>) -> Arc<Identity> {
    Arc::new(Identity {
        public_key: format!("{name}-key="),
        name: name.to_owned(),
        user: user.map(str::to_owned),
        device: None,
        groups: Vec::new(),
        endpoint: None,
    })
}

/// The only record of a TCP flow of alice.
pub(crate) fn record() -> Record {
    let counters = Counters { rx_packets: 2, rx_bytes: 120, tx_packets: 1, tx_bytes: 60 };
    Record {
        record_id: 1,
        interface: "wg0".into(),
        entry: Entry::default(),
        tuple: Tuple {
            protocol: 6,
            peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
            remote_addr: "::ffff:10.0.0.1".parse().unwrap(),
            peer_port: 40_000,
            remote_port: 443,
        },
        window_start_ms: 0,
        window_end_ms: 60_000,
        first_seen_ms: 0,
        last_seen_ms: 60_000,
        initiator: Initiator::Peer,
        icmp: None,
        peer: Some(peer("alice", Some("alice@example.com"))),
        remote_peer: None,
        peer_resource: None,
        remote_resource: None,
        verdict: Verdict::Allow,
        enforced: false,
        rule: None,
        policy_revision: 0,
        counters,
        total: counters,
        tcp_flags: TcpFlags::default(),
        end_reason: None,
        overflow: false,
    }
}

/// What of alice's packets found the flow table full.
pub(crate) fn overflow() -> Record {
    Record { tuple: Tuple::NONE, overflow: true, ..record() }
}
