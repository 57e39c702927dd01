//! Who or what a rule speaks of.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::Policy;
use crate::flows::Identity;

/// One entry of a rule's `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// Everything.
    Any,
    /// The gateway's own addresses.
    Gateway,
    /// A prefix, host bits zero. IPv4 is never written as mapped IPv6 here.
    Net(IpNet),
    /// An entry of `[resources]`.
    Resource(String),
    /// A peer, by name or by its whole public key.
    Peer(String),
    /// Every peer of a user.
    User(String),
    /// An entry of `[groups]`, and every peer whose identity lists the group.
    Group(String),
}

/// The members of one entry of `[groups]`, groups inside it unfolded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Names or whole public keys of peers.
    pub peers: BTreeSet<String>,
    /// Users.
    pub users: BTreeSet<String>,
    /// Groups that identities list.
    pub groups: BTreeSet<String>,
}

/// One end of a flow, as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// The peer that owns the address.
    pub peer: Option<&'a Identity>,
    /// In its own family.
    pub ip: IpAddr,
    /// Whether the gateway itself has the address.
    pub is_gateway: bool,
}

impl fmt::Display for Selector {
    /// As it is written in a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Gateway => f.write_str("gateway"),
            Self::Net(net) => net.fmt(f),
            Self::Resource(name) => write!(f, "resource:{name}"),
            Self::Peer(name) => write!(f, "peer:{name}"),
            Self::User(user) => write!(f, "user:{user}"),
            Self::Group(group) => write!(f, "group:{group}"),
        }
    }
}

impl Selector {
    /// Whether this entry means the endpoint.
    pub fn matches(&self, endpoint: &Endpoint<'_>, policy: &Policy) -> bool {
        match self {
            Self::Any => true,
            Self::Gateway => endpoint.is_gateway,
            Self::Net(net) => net.contains(&endpoint.ip),
            Self::Resource(name) => policy
                .resources
                .get(name)
                .is_some_and(|nets| nets.iter().any(|net| net.contains(&endpoint.ip))),
            Self::Peer(_) | Self::User(_) | Self::Group(_) => {
                endpoint.peer.is_some_and(|peer| self.means(peer, policy))
            }
        }
    }

    /// Whether this entry means the peer wherever it is.
    pub fn means(&self, peer: &Identity, policy: &Policy) -> bool {
        match self {
            Self::Any => true,
            Self::Gateway | Self::Net(_) | Self::Resource(_) => false,
            Self::Peer(name) => *name == peer.name || *name == peer.public_key,
            Self::User(user) => peer.user.as_ref() == Some(user),
            Self::Group(group) => {
                peer.groups.contains(group)
                    || policy.groups.get(group).is_some_and(|members| members.has(peer))
            }
        }
    }
}

impl Group {
    /// Whether the peer is in it.
    pub fn has(&self, peer: &Identity) -> bool {
        self.peers.contains(&peer.name)
            || self.peers.contains(&peer.public_key)
            || peer.user.as_ref().is_some_and(|user| self.users.contains(user))
            || peer.groups.iter().any(|group| self.groups.contains(group))
    }
}
