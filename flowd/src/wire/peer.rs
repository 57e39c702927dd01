//! The peers of the gateway's interfaces.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::flows::{Counters, Identity};

/// WireGuard's own counters of a peer: outer bytes, as `wg show` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardCounters {
    /// Bytes received, encryption overhead and keepalives included.
    pub rx_bytes: u64,
    /// Bytes sent, encryption overhead and keepalives included.
    pub tx_bytes: u64,
}

/// One peer on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Key, name, user, device, groups, endpoint.
    #[serde(flatten)]
    pub identity: Identity,
    /// The interface that has it.
    pub interface: String,
    /// Its addresses inside the tunnel, as prefixes.
    pub allowed_ips: Vec<String>,
    /// `None`: never.
    pub latest_handshake: Option<Timestamp>,
    /// Flows in the kernel's table now.
    pub open_flows: u64,
    /// What flowd counted for it since the daemon attached, overflow included.
    #[serde(flatten)]
    pub counters: Counters,
    /// What WireGuard counted since the peer was configured.
    pub wireguard: WireguardCounters,
}

/// `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerList {
    /// By interface, then name.
    pub peers: Vec<Peer>,
}
