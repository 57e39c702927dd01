//! What a policy is applied to: peers, their addresses, the gateway's own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use flowd_common::peer::PeerId;

use super::Endpoint;
use crate::flows::{Identity, Routes};

/// Everything besides its rules that a policy's verdicts depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The allowed-ips of every interface, by its number.
    pub routes: BTreeMap<u32, Routes>,
    /// Who the numbers in `routes` are.
    pub identities: HashMap<PeerId, Arc<Identity>>,
    /// The gateway's own addresses.
    pub gateway: BTreeSet<IpAddr>,
}

impl World {
    /// The endpoint at the peers' side of an interface.
    pub fn near(&self, ifindex: u32, addr: Ipv6Addr) -> Endpoint<'_> {
        let owner = self.routes.get(&ifindex).and_then(|routes| routes.owner(addr));
        self.endpoint(owner, addr)
    }

    /// The endpoint at the other side: a peer when it lives behind this interface or another.
    pub fn far(&self, ifindex: u32, addr: Ipv6Addr) -> Endpoint<'_> {
        self.endpoint(self.resident(ifindex, addr), addr)
    }

    /// The peer that lives at an address: on this interface first, then on others.
    pub fn resident(&self, ifindex: u32, addr: Ipv6Addr) -> Option<PeerId> {
        let here = self.routes.get(&ifindex).and_then(|routes| routes.resident(addr));
        here.or_else(|| self.routes.values().find_map(|routes| routes.resident(addr)))
    }

    fn endpoint(&self, peer: Option<PeerId>, addr: Ipv6Addr) -> Endpoint<'_> {
        let ip = addr.to_canonical();
        Endpoint {
            peer: peer.and_then(|id| self.identities.get(&id)).map(Arc::as_ref),
            ip,
            is_gateway: self.gateway.contains(&ip),
        }
    }
}
