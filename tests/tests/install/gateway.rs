//! The machine: a gateway with wg-quick, and a peer in a network namespace.
//!
//! ```text
//!   peer ┌────────────────┐         ┌─────────────────────── machine ┐
//!        │ wg0 10.8.0.2   │ tunnel  │ wg0 10.8.0.1/24  (wg-quick)    │
//!        │                │═════════│                                │
//!        │ eth0 172.31.0.2│─────────│ u0  172.31.0.1/24              │
//!        └────────────────┘  veth   └────────────────────────────────┘
//! ```

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flowd::flows::{Counters, FlowId};
use flowd_tests::{
    namespace::Namespace,
    own_machine,
    traffic::{End, udp},
    wireguard::{self, Keys, WgLink},
};
use serde::{Deserialize, Serialize};

/// What wg-quick reads.
pub(crate) const CONFIGURATION: &str = "/etc/wireguard/wg0.conf";
/// The peer's name there.
pub(crate) const PEER: &str = "laptop-of-alice";

const GATEWAY_V4: [u8; 4] = [10, 8, 0, 1];
const PEER_V4: [u8; 4] = [10, 8, 0, 2];

/// The machine in one boot.
///
/// Fields drop in order: the peer's interface before its namespace.
pub(crate) struct Gateway {
    /// Of the peer.
    _link: WgLink,
    /// Where the peer is.
    pub(crate) peer: Namespace,
    /// The machine itself.
    pub(crate) here: Namespace,
    /// What outlives a boot.
    pub(crate) notes: Notes,
}

/// What a boot leaves for the next one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// How many boots there were, this one included.
    boots: usize,
    /// Private and public, of the gateway, its peer, and one that never comes.
    keys: Vec<(String, String)>,
    /// What flows had counted when the machine restarted.
    pub(crate) flows: Vec<(FlowId, Counters)>,
}

impl Gateway {
    /// Brings up the peer, and in the first boot writes what wg-quick reads.
    pub(crate) fn boot() -> Self {
        let path = path();
        let mut notes: Notes = fs::read(&path)
            .map(|text| serde_json::from_slice(&text).expect("a file of ours"))
            .unwrap_or_default();
        notes.boots += 1;
        if notes.keys.is_empty() {
            let keys = [Keys::new(), Keys::new(), Keys::new()];
            notes.keys = keys.map(|keys| (keys.private, keys.public)).to_vec();
            write_configuration(&notes.keys);
        }
        let (here, peer) = (Namespace::here("gateway"), Namespace::new("peer"));
        let link = connect(&here, &peer, &notes.keys);
        let gateway = Self { _link: link, peer, here, notes };
        gateway.save();
        gateway
    }

    /// How many boots there were, this one included.
    pub(crate) fn boots(&self) -> usize {
        self.notes.boots
    }

    /// The public key of the peer that never comes.
    pub(crate) fn absent(&self) -> &str {
        &self.notes.keys[2].1
    }

    /// For the next boot.
    pub(crate) fn save(&self) {
        let path = path();
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("room");
        fs::write(path, serde_json::to_vec(&self.notes).expect("it is plain")).expect("room");
    }

    /// The peer's end and the gateway's.
    pub(crate) fn ends(&self) -> (End<'_>, End<'_>) {
        ((&self.peer, IpAddr::from(PEER_V4)), (&self.here, IpAddr::from(GATEWAY_V4)))
    }

    /// Sockets at both ends, from the peer to a port of the gateway.
    pub(crate) fn pair(&self, port: u16) -> udp::Pair {
        let (near, far) = self.ends();
        udp::Pair::on_port(near, far, port)
    }
}

fn path() -> PathBuf {
    own_machine::disk().expect("the machine is ours").join("notes.json")
}

fn write_configuration(keys: &[(String, String)]) {
    let [gateway, peer, absent] = keys else { panic!("three pairs of keys") };
    let text = format!(
        "[Interface]\nAddress = 10.8.0.1/24\nListenPort = 51820\nPrivateKey = {}\n\n\
         [Peer]\n# Name = {PEER}\nPublicKey = {}\nAllowedIPs = 10.8.0.2/32\n\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.3/32\n",
        gateway.0, peer.1, absent.1
    );
    fs::create_dir_all(Path::new(CONFIGURATION).parent().expect("a directory")).expect("room");
    fs::write(CONFIGURATION, text).expect("room");
    fs::set_permissions(CONFIGURATION, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn connect(here: &Namespace, peer: &Namespace, keys: &[(String, String)]) -> WgLink {
    here.ip(&format!("link add u0 type veth peer name eth0 netns {}", peer.path()));
    here.ip("addr add 172.31.0.1/24 dev u0");
    here.ip("link set u0 up");
    peer.ip("addr add 172.31.0.2/24 dev eth0");
    peer.ip("link set eth0 up");
    let (private, public) = keys[1].clone();
    let link = WgLink::create(peer, "wg0", &Keys { private, public }, 51820);
    peer.ip("addr add 10.8.0.2/24 dev wg0");
    wireguard::set_peer(peer, "wg0", &keys[0].1, "10.8.0.0/24", Some("172.31.0.1:51820"));
    link
}
