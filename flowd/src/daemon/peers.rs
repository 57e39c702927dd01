//! The peers of the watched interfaces, and their numbers in the kernel's tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use flowd_common::{
    memory::{KEY_CHARS, PeerNote},
    peer::{NO_PEER, PeerId},
};
use serde_json::json;

use super::collector::now_ms;
use crate::{
    audit::{Event, Teller, word},
    dataplane::{DataplaneError, Notebook},
    flows::{Identity, Routes},
    identity::{Listed, Names},
    policy::World,
    wireguard::Interface,
};

/// Entries of `peers.toml` without a peer that the log names one by one.
const STRANGERS_TOLD: usize = 20;

/// One peer on one interface, as it is now.
struct Member {
    id: PeerId,
    endpoint: Option<SocketAddr>,
}

/// Everybody who was a peer since the daemon started, and who owns which address now.
#[derive(Default)]
pub(super) struct Peers {
    names: Names,
    members: HashMap<(u32, String), Member>,
    identities: HashMap<PeerId, Arc<Identity>>,
    routes: BTreeMap<u32, Routes>,
    gateway: BTreeSet<IpAddr>,
    last_id: PeerId,
    /// Numbers that a daemon before gave out, and that nobody has claimed yet.
    given: HashMap<(u32, String), PeerId>,
    /// Numbers that are noted for the next daemon.
    noted: HashSet<PeerId>,
    /// Whether the log has heard of the names that no peer bears.
    strangers_told: bool,
    /// The audit log.
    pub(super) teller: Teller,
}

/// Whether a drain must look again at whom the open flows belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Every address has the peer that it had.
    Same,
    /// Some address has another.
    Changed,
}

impl Peers {
    pub(super) fn new(names: Names) -> Self {
        Self { names, ..Self::default() }
    }

    /// Takes the numbers that a daemon before gave out: the kernel's flows bear them.
    pub(super) fn remember(&mut self, notes: &[(PeerId, PeerNote)]) {
        for (id, note) in notes {
            let public_key = String::from_utf8_lossy(&note.public_key).into_owned();
            self.identities.insert(*id, Arc::new(self.names.identity(&public_key, None)));
            self.given.insert((note.ifindex, public_key), *id);
            self.last_id = self.last_id.max(*id);
        }
    }

    /// Notes the numbers for the next daemon, before the kernel uses them.
    pub(super) fn note(&mut self, notebook: &mut Notebook) -> Result<(), DataplaneError> {
        for ((ifindex, text), Member { id, .. }) in &self.members {
            let mut public_key = [0; KEY_CHARS];
            let known = text.len().min(KEY_CHARS);
            public_key[..known].copy_from_slice(&text.as_bytes()[..known]);
            if !self.noted.contains(id) {
                notebook.peer(*id, &PeerNote { ifindex: *ifindex, public_key })?;
                self.noted.insert(*id);
            }
        }
        Ok(())
    }

    /// Takes new names; they stand in records from now on.
    pub(super) fn rename(&mut self, names: Names) {
        self.names = names;
        self.strangers_told = false;
        for ((_, public_key), member) in &self.members {
            let identity = self.names.identity(public_key, member.endpoint);
            let before = self.identities.insert(member.id, Arc::new(identity.clone()));
            if let Some(before) = before.filter(|before| **before != identity) {
                self.teller.tell(renamed(&before, &identity));
            }
        }
    }

    /// Tells the log which entries of `peers.toml` name nobody, once for all names that are taken,
    /// and not before there is an interface.
    pub(super) fn tell_strangers(&mut self) {
        if self.strangers_told || self.routes.is_empty() {
            return;
        }
        self.strangers_told = true;
        let present = self.members.keys().map(|(_, public_key)| public_key.clone()).collect();
        let strangers = self.names.strangers(&present);
        for Listed { line, public_key } in strangers.iter().take(STRANGERS_TOLD) {
            let peer = Identity::short_key(public_key);
            tracing::warn!("peers.toml: line {line}: no watched interface has the peer {peer}");
        }
        if strangers.len() > STRANGERS_TOLD {
            let more = strangers.len() - STRANGERS_TOLD;
            tracing::warn!(more, "peers.toml: so many more are on no watched interface");
        }
    }

    /// Takes what WireGuard says now, and the gateway's own addresses.
    pub(super) fn update(
        &mut self,
        interfaces: &[Interface],
        gateway: BTreeSet<IpAddr>,
    ) -> Ownership {
        let mut routes = BTreeMap::new();
        let mut present = HashSet::new();
        for interface in interfaces {
            let mut owned = Routes::default();
            for peer in &interface.peers {
                let key = (interface.ifindex, peer.public_key.clone());
                let id = self.member(&key, peer.endpoint);
                for net in &peer.allowed_ips {
                    owned.insert(net, id);
                }
                present.insert(key);
            }
            routes.insert(interface.ifindex, owned);
        }
        self.members.retain(|key, _| present.contains(key));
        let ownership = if routes == self.routes { Ownership::Same } else { Ownership::Changed };
        self.routes = routes;
        self.gateway = gateway;
        ownership
    }

    /// Whether the gateway's addresses are these.
    pub(super) fn has_gateway(&self, gateway: &BTreeSet<IpAddr>) -> bool {
        self.gateway == *gateway
    }

    /// What a policy is applied to now. Outer addresses are left out: no rule speaks of them.
    pub(super) fn world(&self) -> World {
        let identities = self.members.iter().filter_map(|((_, _), member)| {
            let identity = self.identities.get(&member.id)?;
            let identity = Identity { endpoint: None, ..identity.as_ref().clone() };
            Some((member.id, Arc::new(identity)))
        });
        World {
            routes: self.routes.clone(),
            identities: identities.collect(),
            gateway: self.gateway.clone(),
        }
    }

    /// Everybody a policy may name: who is there, and who is known by name.
    pub(super) fn known(&self) -> Vec<Identity> {
        let present = self.members.values().filter_map(|member| self.identities.get(&member.id));
        let present = present.map(|identity| identity.as_ref().clone());
        let all = self.names.known().chain(present);
        let by_key: BTreeMap<String, Identity> =
            all.map(|identity| (identity.public_key.clone(), identity)).collect();
        by_key.into_values().collect()
    }

    fn member(&mut self, key: &(u32, String), endpoint: Option<SocketAddr>) -> PeerId {
        let Self { names, members, identities, last_id, given, .. } = self;
        if let Some(member) = members.get_mut(key) {
            if member.endpoint != endpoint {
                member.endpoint = endpoint;
                identities.insert(member.id, Arc::new(names.identity(&key.1, endpoint)));
            }
            return member.id;
        }
        let id = given.remove(key).unwrap_or_else(|| {
            *last_id += 1;
            *last_id
        });
        members.insert(key.clone(), Member { id, endpoint });
        identities.insert(id, Arc::new(names.identity(&key.1, endpoint)));
        id
    }

    /// The peer that owns an address of an interface now; [`NO_PEER`] if nobody does.
    pub(super) fn owner(&self, ifindex: u32, addr: Ipv6Addr) -> PeerId {
        self.routes.get(&ifindex).and_then(|routes| routes.owner(addr)).unwrap_or(NO_PEER)
    }

    /// The peer that lives at the far end of a flow: on the same interface first, then on others.
    pub(super) fn resident(&self, ifindex: u32, addr: Ipv6Addr) -> Option<Arc<Identity>> {
        let here = self.routes.get(&ifindex).and_then(|routes| routes.resident(addr));
        let id = here.or_else(|| self.routes.values().find_map(|routes| routes.resident(addr)))?;
        self.identity(id)
    }

    /// Who a number stands for, also after the peer is gone.
    pub(super) fn identity(&self, id: PeerId) -> Option<Arc<Identity>> {
        self.identities.get(&id).cloned()
    }

    /// Who a key stands for by the names of now, whether or not it is a peer.
    pub(super) fn named(&self, public_key: &str, endpoint: Option<SocketAddr>) -> Arc<Identity> {
        Arc::new(self.names.identity(public_key, endpoint))
    }

    /// The number of a peer that is configured now.
    pub(super) fn id(&self, ifindex: u32, public_key: &str) -> Option<PeerId> {
        self.members.get(&(ifindex, public_key.to_owned())).map(|member| member.id)
    }

    /// Forgets those who are gone and whom no flow needs any more.
    pub(super) fn forget(
        &mut self,
        needed: &HashSet<PeerId>,
        notebook: &mut Notebook,
    ) -> Result<(), DataplaneError> {
        let present: HashSet<PeerId> = self.members.values().map(|member| member.id).collect();
        let is_needed = |id: &PeerId| present.contains(id) || needed.contains(id);
        for id in self.identities.keys().filter(|id| !is_needed(id)) {
            notebook.forget_peer(*id)?;
        }
        self.identities.retain(|id, _| is_needed(id));
        self.noted.retain(|id| is_needed(id));
        self.given.retain(|_, id| is_needed(id));
        Ok(())
    }
}

/// What the audit log is told when a peer has another name, user, device or other groups.
fn renamed(before: &Identity, now: &Identity) -> Event {
    let told = |identity: &Identity| {
        let Identity { public_key: _, name, user, device, groups, endpoint: _ } = identity;
        json!({ "name": name, "user": user, "device": device, "groups": groups })
    };
    Event::auto(now_ms(), word::PEER_RENAMED)
        .on(&*now.public_key)
        .with("from", told(before))
        .with("to", told(now))
}
