//! What the records of chunks are grouped by: keys, their numbers, and where those stand.

use std::{collections::HashMap, net::IpAddr};

use flowd_common::packet::has_ports;
use foldhash::fast::RandomState;

use super::row::Names;
use crate::{
    chunk::{Chunk, ChunkError, Code, End, Kind, NameId, Page},
    flows::{By, Initiator, Key},
};

/// The keys of one property, and their numbers.
#[derive(Default)]
pub(super) struct Keys {
    ids: HashMap<Option<Key>, u32, RandomState>,
    /// Those that are addresses, which are many.
    addresses: HashMap<u128, u32, RandomState>,
    keys: Vec<Option<Key>>,
}

impl Keys {
    /// The number of a key, which it gets if it has none.
    pub(super) fn id(&mut self, key: Option<Key>) -> u32 {
        let next = self.keys.len() as u32;
        let id = match &key {
            Some(Key::Address(address)) => {
                let bits = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(address) => address.to_bits(),
                };
                *self.addresses.entry(bits).or_insert(next)
            }
            _ => match self.ids.get(&key) {
                Some(id) => *id,
                None => *self.ids.entry(key.clone()).or_insert(next),
            },
        };
        if id == next {
            self.keys.push(key);
        }
        id
    }

    /// The key of a number that was given out.
    pub(super) fn key(&self, id: u32) -> Option<Key> {
        self.keys.get(id as usize).cloned().flatten()
    }
}

/// No record that is wanted had this code so far.
const UNKNOWN: u32 = u32::MAX;

/// Where the number of a record's key stands.
pub(super) enum Table {
    Kind(Vec<u32>),
    Peer(Vec<u32>),
    End { peers: Vec<u32>, remotes: Vec<u32> },
    Port,
}

impl Table {
    /// For the codes of a chunk.
    pub(super) fn of(by: By, chunk: &Chunk) -> Result<Self, ChunkError> {
        let unknown = |length| vec![UNKNOWN; length];
        Ok(match by {
            By::Verdict | By::Rule | By::Protocol => Self::Kind(unknown(chunk.kinds()?.len())),
            By::Peer | By::User => Self::Peer(unknown(chunk.peer_ends()?.len())),
            By::Src | By::Dst => Self::End {
                peers: unknown(chunk.peer_ends()?.len()),
                remotes: unknown(chunk.remote_ends()?.len()),
            },
            By::DstPort => Self::Port,
        })
    }

    /// Of each record of a page that is wanted.
    pub(super) fn ids(
        &mut self,
        by: By,
        page: &Page<'_>,
        wanted: &[usize],
        keys: &mut Keys,
        names: &Names,
    ) -> Result<Vec<u32>, ChunkError> {
        let chunk = page.chunk();
        let kinds = chunk.kinds()?;
        let codes = page.codes(Code::Kind)?;
        let kind = |at: usize| &kinds[codes[at] as usize];
        let mut known = |id: &mut u32, key: &dyn Fn() -> Option<Key>| {
            if *id == UNKNOWN {
                *id = keys.id(key());
            }
            *id
        };
        let wanted = wanted.iter().copied();
        Ok(match self {
            Self::Kind(table) => wanted
                .map(|at| known(&mut table[codes[at] as usize], &|| of_kind(by, kind(at), names)))
                .collect(),
            Self::Peer(table) => {
                let (ends, codes) = (chunk.peer_ends()?, page.codes(Code::Peer)?);
                let key = |code: u32| of_peer(by, ends[code as usize].peer, names);
                wanted.map(|at| known(&mut table[codes[at] as usize], &|| key(codes[at]))).collect()
            }
            Self::End { peers, remotes } => {
                let (near, far) = (page.codes(Code::Peer)?, page.codes(Code::Remote)?);
                let (near_ends, far_ends) = (chunk.peer_ends()?, chunk.remote_ends()?);
                let mut none = UNKNOWN;
                let of = |at: usize| {
                    let inward = kind(at).initiator == Initiator::Remote;
                    if kind(at).overflow {
                        known(&mut none, &|| None)
                    } else if inward == (by == By::Dst) {
                        let code = near[at] as usize;
                        known(&mut peers[code], &|| Some(address(&near_ends[code])))
                    } else {
                        let code = far[at] as usize;
                        known(&mut remotes[code], &|| Some(address(&far_ends[code])))
                    }
                };
                wanted.map(of).collect()
            }
            Self::Port => {
                let ports = page.codes(Code::DstPort)?;
                let mut last: (Option<u16>, u32) = (None, UNKNOWN);
                let of = |at: usize| {
                    let has_port = !kind(at).overflow && has_ports(kind(at).protocol);
                    let port = has_port.then_some(ports[at] as u16);
                    if last.0 != port {
                        last = (port, UNKNOWN);
                    }
                    known(&mut last.1, &|| port.map(Key::Port))
                };
                wanted.map(of).collect()
            }
        })
    }
}

pub(super) fn address(end: &End) -> Key {
    Key::Address(end.addr.to_canonical())
}

fn of_kind(by: By, kind: &Kind, names: &Names) -> Option<Key> {
    match by {
        By::Verdict => Some(Key::Verdict(kind.verdict)),
        By::Rule => Some(Key::Name(names.words.get(&kind.rule?.get())?.to_string())),
        _ => (!kind.overflow).then_some(Key::Protocol(kind.protocol)),
    }
}

pub(super) fn of_peer(by: By, id: NameId, names: &Names) -> Option<Key> {
    let identity = names.peers.get(&i64::from(id?.get()))?;
    match by {
        By::User => identity.user.clone().map(Key::Name),
        _ => Some(Key::Name(identity.name.clone())),
    }
}
