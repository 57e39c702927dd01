//! The peers of the gateway's interfaces.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Coverage, Timestamp};
use crate::flows::{Counters, Identity, PeerEventKind};

/// WireGuard's own counters of a peer: outer bytes, as `wg show` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WireguardCounters {
    /// Bytes received, encryption overhead and keepalives included.
    pub rx_bytes: u64,
    /// Bytes sent, encryption overhead and keepalives included.
    pub tx_bytes: u64,
}

/// One peer on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Since when its session lasts; `None`: there is none.
    pub connected_since: Option<Timestamp>,
    /// Flows in the kernel's table now.
    pub open_flows: u64,
    /// What flowd counted for it since the daemon attached, overflow included.
    #[serde(flatten)]
    pub counters: Counters,
    /// What WireGuard counted since the peer was configured.
    pub wireguard: WireguardCounters,
    /// The two against each other; `None`: they have not been compared yet.
    pub coverage: Option<Coverage>,
}

/// `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// By interface, then name.
    pub peers: Vec<Peer>,
}

/// `GET /v1/peers/{key or name}`: one peer, now and over a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerDetail {
    /// Who it is; for one that was removed, who it was.
    #[serde(flatten)]
    pub identity: Identity,
    /// The peer as each interface has it now; none: it was removed.
    pub interfaces: Vec<Peer>,
    /// The range that the rest is about.
    pub since: Timestamp,
    /// The range that the rest is about.
    pub until: Timestamp,
    /// When it was there, oldest first.
    pub sessions: Vec<PeerSession>,
    /// What happened to it, oldest first.
    pub events: Vec<PeerEvent>,
    /// Windows in which flowd's books were compared with WireGuard's, oldest first.
    pub coverage: Vec<PeerInterval>,
}

/// A time in which a peer was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerSession {
    /// The interface that had it.
    pub interface: String,
    /// The first handshake; `None`: before the range.
    pub connected: Option<Timestamp>,
    /// Three minutes after the last handshake, or when peer or interface went; `None`: not in the
    /// range.
    pub disconnected: Option<Timestamp>,
    /// Its outer addresses within the range, oldest first.
    pub endpoints: Vec<SessionEndpoint>,
}

/// Where a peer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionEndpoint {
    /// From when.
    pub since: Timestamp,
    /// The outer address.
    #[schema(value_type = String)]
    pub endpoint: SocketAddr,
}

/// One thing that happened to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: PeerEventKind,
    /// The interface that has it, or had.
    pub interface: String,
    /// Its outer address from then on.
    #[schema(value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// Its outer address until then, when it roams.
    #[schema(value_type = Option<String>)]
    pub was: Option<SocketAddr>,
    /// How often WireGuard's counters of the peer had started from zero.
    pub epoch: u32,
}

/// A window on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerInterval {
    /// Its name.
    pub interface: String,
    /// What was compared.
    #[serde(flatten)]
    pub coverage: Coverage,
}
