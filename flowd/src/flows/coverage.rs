//! Whether the flows of a peer explain what WireGuard itself counted for it.
//!
//! WireGuard's counters and flowd's tables cannot be read at one instant. So an observation of the
//! flows stands between two readings of WireGuard's counters, and only what is true of every instant
//! in between is claimed.
//!
//! - every packet inside the tunnel is 32 to 47 bytes longer outside
//! - WireGuard's own messages are at most as many as its timers allow
//! - what WireGuard has beyond that was carried and not recorded
//! - what it has less, flowd counted and WireGuard did not carry

use std::time::Duration;

use super::Counters;

/// Header and tag of a data message; a keepalive is nothing else (`message_data_len(0)` in the
/// kernel's `drivers/net/wireguard/messages.h`).
const MESSAGE_BYTES: u64 = 32;
/// What `MESSAGE_PADDING_MULTIPLE` (16) adds at most. The cap at the MTU makes it less.
const MAX_PADDING_BYTES: u64 = 15;
/// `struct message_handshake_initiation`.
const INITIATION_BYTES: u64 = 148;
/// `struct message_handshake_response`.
const RESPONSE_BYTES: u64 = 92;
/// `REKEY_TIMEOUT`: neither side sends initiations more often.
const REKEY_TIMEOUT_S: u64 = 5;
/// The shortest `PersistentKeepalive`; the passive one comes every `KEEPALIVE_TIMEOUT`, 10 seconds.
const KEEPALIVE_S: u64 = 1;
/// Timers run early by their slack, and a side that restarts begins anew.
const SPARE_MESSAGES: u64 = 2;
/// How often an observation must be out of the band before it counts: WireGuard's receive offload
/// holds packets back for a moment, between its counters and flowd.
const STRIKES: u8 = 2;

/// WireGuard's counters of a peer: outer bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One look at a peer's flows between two looks at WireGuard's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// The reading before; since any fixed instant, as is the next.
    pub began: Duration,
    /// The reading after.
    pub ended: Duration,
    /// WireGuard's counters before.
    pub before: Outer,
    /// WireGuard's counters after.
    pub after: Outer,
    /// Everything counted for the peer, cumulative, but for what never got to WireGuard.
    pub flows: Counters,
    /// What was counted for the interface and for nobody, cumulative: any of it may be the peer's.
    pub nobodys: Counters,
}

/// What happened to a peer in one window, by flowd and by WireGuard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What flowd counted.
    pub flows: Counters,
    /// What WireGuard counted.
    pub outer: Outer,
    /// Received bytes out of the band: 0, it is balanced; positive, WireGuard has more than the
    /// flows explain; negative, it has less.
    pub rx_off: i64,
    /// The same of sent bytes.
    pub tx_off: i64,
}

impl Balance {
    /// Bytes that WireGuard carried and no flow explains.
    pub fn unexplained_bytes(&self) -> u64 {
        [self.rx_off, self.tx_off].into_iter().map(|off| u64::try_from(off).unwrap_or(0)).sum()
    }

    /// Whether nothing was carried at all.
    pub fn is_empty(&self) -> bool {
        self.flows == Counters::default() && self.outer == Outer::default()
    }

    /// This and what followed.
    pub fn and(self, next: Self) -> Self {
        Self {
            flows: self.flows + next.flows,
            outer: Outer {
                rx_bytes: self.outer.rx_bytes + next.outer.rx_bytes,
                tx_bytes: self.outer.tx_bytes + next.outer.tx_bytes,
            },
            rx_off: self.rx_off.saturating_add(next.rx_off),
            tx_off: self.tx_off.saturating_add(next.tx_off),
        }
    }
}

impl Observation {
    /// What happened since `earlier`; `None`: some counter shrank, so that nothing can be said.
    pub fn since(&self, earlier: &Self) -> Option<Balance> {
        let flows = grown(self.flows, earlier.flows)?;
        let nobodys = grown(self.nobodys, earlier.nobodys)?;
        let outer = Outer {
            rx_bytes: self.after.rx_bytes.checked_sub(earlier.after.rx_bytes)?,
            tx_bytes: self.after.tx_bytes.checked_sub(earlier.after.tx_bytes)?,
        };
        let elapsed = self.ended.saturating_sub(earlier.began);
        let own = own_messages_bytes(elapsed);
        let off = |packets: u64, bytes: u64, nobodys: (u64, u64), carried: (u64, u64)| {
            let least = bytes + MESSAGE_BYTES * packets;
            let around = (MESSAGE_BYTES + MAX_PADDING_BYTES) * (packets + nobodys.0);
            let most = bytes + nobodys.1 + around + own;
            let (over, short) = (carried.0.saturating_sub(most), least.saturating_sub(carried.1));
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            if over > 0 { signed(over) } else { -signed(short) }
        };
        // From the last reading of then to the first of now, and from the first to the last.
        let surely = |now: u64, then: u64| now.saturating_sub(then);
        Some(Balance {
            flows,
            outer,
            rx_off: off(
                flows.rx_packets,
                flows.rx_bytes,
                (nobodys.rx_packets, nobodys.rx_bytes),
                (
                    surely(self.before.rx_bytes, earlier.after.rx_bytes),
                    surely(self.after.rx_bytes, earlier.before.rx_bytes),
                ),
            ),
            tx_off: off(
                flows.tx_packets,
                flows.tx_bytes,
                (nobodys.tx_packets, nobodys.tx_bytes),
                (
                    surely(self.before.tx_bytes, earlier.after.tx_bytes),
                    surely(self.after.tx_bytes, earlier.before.tx_bytes),
                ),
            ),
        })
    }
}

impl Observation {
    /// What may have been carried since `earlier` and not been recorded, if WireGuard sent nothing
    /// of its own and padded nothing.
    fn missing_since(&self, earlier: &Self) -> Missing {
        let flows = grown(self.flows, earlier.flows).unwrap_or_default();
        let one_way = |packets: u64, bytes: u64, now: u64, then: u64| {
            now.saturating_sub(then).saturating_sub(bytes + MESSAGE_BYTES * packets)
        };
        let (now, then) = (self.after, earlier.before);
        let bytes = one_way(flows.rx_packets, flows.rx_bytes, now.rx_bytes, then.rx_bytes)
            + one_way(flows.tx_packets, flows.tx_bytes, now.tx_bytes, then.tx_bytes);
        Missing { packets: bytes / MESSAGE_BYTES, bytes }
    }
}

fn grown(now: Counters, then: Counters) -> Option<Counters> {
    Some(Counters {
        rx_packets: now.rx_packets.checked_sub(then.rx_packets)?,
        rx_bytes: now.rx_bytes.checked_sub(then.rx_bytes)?,
        tx_packets: now.tx_packets.checked_sub(then.tx_packets)?,
        tx_bytes: now.tx_bytes.checked_sub(then.tx_bytes)?,
    })
}

/// Bytes of WireGuard's own messages in one direction at most: a side sends initiations, answers
/// those of the other, confirms each session with a keepalive, and keeps the tunnel alive.
fn own_messages_bytes(elapsed: Duration) -> u64 {
    let elapsed_s = elapsed.as_secs() + 1;
    let handshakes = elapsed_s / REKEY_TIMEOUT_S + SPARE_MESSAGES;
    let keepalives = elapsed_s / KEEPALIVE_S + SPARE_MESSAGES;
    handshakes * (INITIATION_BYTES + RESPONSE_BYTES + MESSAGE_BYTES) + keepalives * MESSAGE_BYTES
}

/// A window that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Unix milliseconds.
    pub start_ms: i64,
    /// Unix milliseconds; the next one starts here.
    pub end_ms: i64,
    /// What happened in it.
    pub balance: Balance,
}

/// So much may have been carried and not recorded, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// A packet has no fewer bytes than a keepalive.
    pub packets: u64,
    /// Outer bytes.
    pub bytes: u64,
}

/// What an observation has brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Packets were carried and not recorded. The window is over.
    Unexplained(Interval, Missing),
    /// After such a window: all is explained again.
    Balanced {
        /// Unix milliseconds of the observation.
        at_ms: i64,
        /// What may be missing since that window, for all that is known.
        missing: Missing,
    },
}

/// The books of one peer in one epoch of WireGuard's counters.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Where the window starts, and its last observation.
    window: Option<(Observation, Observation)>,
    /// When the first window started, and the sum of those that are over.
    since: Option<(i64, Balance)>,
    /// Observations in a row that were out of the band.
    strikes: u8,
    /// After packets went unrecorded: observations in a row that were in the band.
    calm: Option<u8>,
}

impl Coverage {
    /// Takes an observation.
    pub fn observe(&mut self, now: Observation) -> Option<Finding> {
        let balance = self.window.as_ref().and_then(|(start, _)| now.since(start));
        let (Some(balance), Some((_, last))) = (balance, &mut self.window) else {
            self.window = Some((now, now));
            self.since.get_or_insert((now.at_ms, Balance::default()));
            self.strikes = 0;
            return None;
        };
        *last = now;
        if balance.unexplained_bytes() > 0 {
            self.calm = self.calm.map(|_| 0);
            self.strikes += 1;
            if self.strikes < STRIKES {
                return None;
            }
            self.calm = Some(0);
            let missing = self.missing();
            return self.close().map(|interval| Finding::Unexplained(interval, missing));
        }
        self.strikes = 0;
        let calm = self.calm.as_mut()?;
        *calm += 1;
        if *calm < STRIKES {
            return None;
        }
        self.calm = None;
        Some(Finding::Balanced { at_ms: now.at_ms, missing: self.missing() })
    }

    /// What may be missing in the window.
    pub fn missing(&self) -> Missing {
        self.window.map(|(start, last)| last.missing_since(&start)).unwrap_or_default()
    }

    /// Ends the window; the next one starts with its last observation. `None`: it has but one.
    pub fn close(&mut self) -> Option<Interval> {
        let (start, last) = &mut self.window?;
        let balance = last.since(start)?;
        if start.ended == last.ended {
            return None;
        }
        self.window = Some((*last, *last));
        self.strikes = 0;
        if let Some((_, sum)) = &mut self.since {
            *sum = sum.and(balance);
        }
        Some(Interval { start_ms: start.at_ms, end_ms: last.at_ms, balance })
    }

    /// Ends the window without a successor: whatever happens until the next observation, nothing is
    /// claimed of it.
    pub fn interrupt(&mut self) -> Option<Interval> {
        let over = self.close();
        (self.window, self.strikes, self.calm) = (None, 0, None);
        over
    }

    /// Whether the last observation was no first sign of packets that go unrecorded.
    pub fn is_settled(&self) -> bool {
        self.strikes == 0
    }

    /// Whether packets went unrecorded, and it is not sure yet that this is over.
    pub fn is_out(&self) -> bool {
        self.calm.is_some()
    }

    /// Everything since the first observation, windows that are over included.
    pub fn total(&self) -> Option<Interval> {
        let (start_ms, sum) = self.since?;
        let (end_ms, balance) = match &self.window {
            Some((start, last)) => (last.at_ms, sum.and(last.since(start).unwrap_or_default())),
            None => (start_ms, sum),
        };
        Some(Interval { start_ms, end_ms, balance })
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
