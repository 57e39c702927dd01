//! One record as a segment holds it: names are numbers into the segment's own tables.

use std::num::NonZeroU32;

use crate::flows::{Counters, EndReason, Icmp, Initiator, TcpFlags, Tuple, Verdict};

/// A number into a table of the segment; `None` is SQL's NULL.
pub type NameId = Option<NonZeroU32>;

/// A record with the numbers of its names. [`crate::flows::Record`] says what the fields mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Gap-free per gateway from 1.
    pub record_id: u64,
    /// Row of the segment's `interface`.
    pub interface: u32,
    /// Row of the segment's `peer`, the state of the peer at that time.
    pub peer: NameId,
    /// The same of the peer at the other end.
    pub remote_peer: NameId,
    /// Number of the resource around the inside address.
    pub peer_resource: NameId,
    /// The same of the other address.
    pub remote_resource: NameId,
    /// Number of the rule that decided.
    pub rule: NameId,
    /// The endpoints.
    pub tuple: Tuple,
    /// Unix milliseconds.
    pub window_start_ms: i64,
    /// Unix milliseconds.
    pub window_end_ms: i64,
    /// Unix milliseconds.
    pub first_seen_ms: i64,
    /// Unix milliseconds.
    pub last_seen_ms: i64,
    /// Who opened the conversation.
    pub initiator: Initiator,
    /// For ICMP and ICMPv6 only.
    pub icmp: Option<Icmp>,
    /// What the policy says.
    pub verdict: Verdict,
    /// Whether a denied packet was dropped.
    pub enforced: bool,
    /// The policy that was in force; zero: none.
    pub policy_revision: u32,
    /// In this window.
    pub counters: Counters,
    /// Since the first packet.
    pub total: Counters,
    /// Since the first packet.
    pub tcp_flags: TcpFlags,
    /// `None` while the flow lives.
    pub end_reason: Option<EndReason>,
    /// The sum of a peer's packets that are in no flow.
    pub overflow: bool,
}

impl Row {
    /// Whether this is the first record of its flow, as in [`crate::flows::Record::opens_range`].
    pub fn opens(&self) -> bool {
        self.counters == self.total
    }

    /// Whether it is what a record can be: its window does not end before it begins, and what was
    /// counted in it is part of the total. SQLite's integers are signed.
    pub fn is_sound(&self) -> bool {
        let counters = |c: Counters| [c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes];
        self.window_start_ms <= self.window_end_ms
            && counters(self.counters)
                .iter()
                .zip(counters(self.total))
                .all(|(window, total)| *window <= total && i64::try_from(total).is_ok())
    }
}
