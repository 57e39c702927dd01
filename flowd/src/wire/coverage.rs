//! What flowd counted for a peer against what WireGuard itself did.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Timestamp, WireguardCounters};
use crate::flows::{Balance as Balances, Counters, Interval};

/// How two counters stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BalanceState {
    /// The flows explain what WireGuard counted.
    Balanced,
    /// WireGuard has more: packets were carried and not recorded.
    Over,
    /// WireGuard has less: what flowd counted was not carried. Sent packets are, when WireGuard has
    /// no endpoint or no key of the peer.
    Short,
}

impl BalanceState {
    /// The word in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Over => "over",
            Self::Short => "short",
        }
    }
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// How they stand.
    pub state: BalanceState,
    /// Outer bytes out of the band that the flows explain: 0, WireGuard has what it should;
    /// positive, so many more; negative, so many less.
    pub off_bytes: i64,
}

impl Balance {
    const fn new(off_bytes: i64) -> Self {
        let state = match off_bytes {
            0 => BalanceState::Balanced,
            1.. => BalanceState::Over,
            _ => BalanceState::Short,
        };
        Self { state, off_bytes }
    }
}

/// Of one peer, over some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    /// From when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// How often WireGuard's counters of the peer had started from zero.
    pub epoch: u32,
    /// What flowd counted, full table included, without what a policy dropped on its way to the
    /// peer.
    #[serde(flatten)]
    pub counters: Counters,
    /// What WireGuard counted.
    pub wireguard: WireguardCounters,
    /// What was received.
    pub rx: Balance,
    /// What was sent.
    pub tx: Balance,
}

impl Coverage {
    /// Of a window.
    pub(crate) fn new(epoch: u32, interval: &Interval) -> Self {
        let Interval { start_ms, end_ms, balance } = interval;
        let Balances { flows, outer, rx_off, tx_off } = balance;
        Self {
            since: Timestamp(*start_ms),
            until: Timestamp(*end_ms),
            epoch,
            counters: *flows,
            wireguard: WireguardCounters { rx_bytes: outer.rx_bytes, tx_bytes: outer.tx_bytes },
            rx: Balance::new(*rx_off),
            tx: Balance::new(*tx_off),
        }
    }
}
