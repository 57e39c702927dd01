//! Questions that sums answer, so that no record of a chunk, or of a digest's chunks, is looked at.

use std::{collections::HashSet, num::NonZeroU32};

use flowd_common::packet::has_ports;
use foldhash::fast::RandomState;

use super::{digests::Extent, keys::of_peer, row::Names};
use crate::{
    chunk::{
        Blobs, ChunkError, ColumnId, ColumnSet, Digest, End, Fate, NameId, Sum, Summed, Sums, end,
        peers_of,
    },
    flows::{By, Filter, Identity, Key},
};

/// By what the sums are that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// Fate alone.
    Totals,
    /// Inside ends.
    Peers,
    /// Ends of who opened the flow.
    Sources,
    /// The ends across.
    Destinations,
    /// Either end.
    Addresses,
    Ports,
}

/// A question that sums answer, of one segment.
pub(super) struct Served<'f> {
    table: Table,
    by: Option<By>,
    filter: &'f Filter,
    /// The peers that the filter means.
    peers: Option<HashSet<NameId, RandomState>>,
}

impl<'f> Served<'f> {
    /// `None`: sums by more than one property would be needed.
    pub(super) fn of<'n>(
        by: &[By],
        filter: &'f Filter,
        names: impl FnOnce() -> rusqlite::Result<&'n Names>,
    ) -> rusqlite::Result<Option<Self>> {
        let Filter {
            since_ms: _,
            until_ms: _,
            peer,
            user,
            src,
            dst,
            ip,
            port,
            src_port,
            dst_port,
            protocol,
            verdict: _,
            rule,
            initiator,
            interface,
            min_bytes,
            state,
        } = filter;
        let is_beside = port.is_some()
            || src_port.is_some()
            || rule.is_some()
            || initiator.is_some()
            || interface.is_some()
            || min_bytes.is_some()
            || state.is_some();
        if is_beside || by.len() > 1 {
            return Ok(None);
        }
        let by = by.first().copied();
        let of_by = match by {
            None | Some(By::Verdict) => None,
            Some(By::Peer | By::User) => Some(Table::Peers),
            Some(By::Src) => Some(Table::Sources),
            Some(By::Dst) => Some(Table::Destinations),
            Some(By::DstPort | By::Protocol) => Some(Table::Ports),
            Some(By::Rule) => return Ok(None),
        };
        let asked = [
            (peer.is_some() || user.is_some()).then_some(Table::Peers),
            src.is_some().then_some(Table::Sources),
            dst.is_some().then_some(Table::Destinations),
            ip.is_some().then_some(Table::Addresses),
            (dst_port.is_some() || protocol.is_some()).then_some(Table::Ports),
        ];
        let mut tables = asked.into_iter().chain([of_by]).flatten();
        let table = tables.next().unwrap_or(Table::Totals);
        let is_meant = |identity: &Identity| {
            peer.as_ref().is_none_or(|peer| identity.is(peer))
                && user.as_ref().is_none_or(|user| identity.user.as_ref() == Some(user))
        };
        // Both at once may mean an end each.
        if !tables.all(|other| other == table) || (peer.is_some() && user.is_some()) {
            return Ok(None);
        }
        let peers = if peer.is_some() || user.is_some() {
            let meant = names()?.peers.iter().filter(|(_, identity)| is_meant(identity));
            let ids = meant.filter_map(|(id, _)| Some(NonZeroU32::new((*id).try_into().ok()?)));
            Some(ids.collect())
        } else {
            None
        };
        Ok(Some(Self { table, by, filter, peers }))
    }

    /// Whether the sums of these records are those of what is asked for: they lie in the range whole,
    /// and no flow of them began before it.
    pub(super) fn is_whole(&self, extent: &Extent, watermark: u64) -> bool {
        let since_ms = self.filter.since_ms.unwrap_or(i64::MIN);
        let until_ms = self.filter.until_ms.map_or(i64::MAX, |until| until.saturating_sub(1));
        *extent.ids.end() <= i64::try_from(watermark).unwrap_or(i64::MAX)
            && since_ms <= *extent.window_end_ms.start()
            && *extent.window_end_ms.end() <= until_ms
            && since_ms <= extent.window_start_ms
    }

    /// The columns of a chunk that it needs.
    pub(super) fn columns(&self) -> ColumnSet {
        use ColumnId::{PeerEnds, PeerSums, PortSums, RemoteEnds, RemoteSums};
        let columns: &[ColumnId] = match self.table {
            Table::Totals => &[],
            Table::Peers if self.peers.is_none() => &[PeerEnds, PeerSums],
            Table::Peers => &[PeerEnds, PeerSums, RemoteEnds],
            Table::Sources | Table::Destinations | Table::Addresses => {
                &[PeerEnds, PeerSums, RemoteEnds, RemoteSums]
            }
            Table::Ports => &[PortSums],
        };
        columns.iter().copied().collect()
    }

    /// The parts of a digest that it needs: totals, peers, remotes, ports, pairs.
    pub(super) fn parts(&self) -> [bool; 5] {
        let is_asked = self.peers.is_some();
        match self.table {
            Table::Totals => [true, false, false, false, false],
            Table::Peers => [false, true, false, false, is_asked],
            Table::Sources | Table::Destinations | Table::Addresses => {
                [false, true, true, false, false]
            }
            Table::Ports => [false, false, false, true, false],
        }
    }

    /// A digest with the sums that it needs.
    pub(super) fn digest(&self, blobs: &Blobs) -> Result<Digest, ChunkError> {
        let Filter { src, dst, ip, .. } = self.filter;
        let net = match self.table {
            Table::Sources => src,
            Table::Destinations => dst,
            Table::Addresses => ip,
            Table::Totals | Table::Peers | Table::Ports => &None,
        };
        let is_wanted = |end: &End| {
            net.is_none_or(|net| net.contains(&end.addr.to_canonical()))
                && self.peers.as_ref().is_none_or(|wanted| wanted.contains(&end.peer))
        };
        Digest::decode_some(blobs, is_wanted, |pair| self.is_of_others(pair))
    }

    /// Whether a pair is one that has a peer that is meant at its other end only.
    fn is_of_others(&self, pair: i64) -> bool {
        let (peer, remote) = peers_of(pair);
        let is_meant = |peer| self.peers.as_ref().is_some_and(|wanted| wanted.contains(&peer));
        is_meant(remote) && !is_meant(peer)
    }

    /// What totals say.
    pub(super) fn add_totals<'s>(
        &self,
        totals: impl Iterator<Item = (&'s Fate, &'s Sum)>,
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) {
        for (fate, sum) in totals {
            add(self.key_of_fate(*fate), *fate, sum);
        }
    }

    /// Whether totals answer.
    pub(super) fn is_of_totals(&self) -> bool {
        self.table == Table::Totals
    }

    /// Adds what sums say under their keys; `false`, and nothing is added: they do not say it.
    pub(super) fn add(
        &self,
        summed: &Summed<'_>,
        remote_ends: Option<&[End]>,
        names: &Names,
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) -> Result<bool, ChunkError> {
        let Summed { peers, remotes, ports, pairs } = *summed;
        match (self.table, peers, remotes, ports) {
            (Table::Peers, Some(peers), _, _) => {
                let others = match pairs {
                    _ if self.is_of_insides(remote_ends) => &[],
                    Some(pairs) => pairs.0.as_slice(),
                    None => return Ok(false),
                };
                self.add_peers(peers, names, &mut add)?;
                self.add_others(others, names, add);
            }
            (Table::Sources | Table::Destinations, Some(peers), Some(remotes), _) => {
                self.add_ends(peers, remotes, add)?;
            }
            (Table::Addresses, Some(peers), Some(remotes), _) => {
                return self.add_addresses(peers, remotes, add);
            }
            (Table::Ports, _, _, Some(ports)) => self.add_ports(ports, add),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add_peers(
        &self,
        (ends, sums): (&[End], &Sums),
        names: &Names,
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) -> Result<(), ChunkError> {
        for ((key, fate), sum) in &sums.0 {
            let peer = end(ends, *key)?.peer;
            if self.peers.as_ref().is_none_or(|wanted| wanted.contains(&peer)) {
                add(self.key_of_peer(peer, *fate, names), *fate, sum);
            }
        }
        Ok(())
    }

    /// Records of other peers that have one that is meant at their other end.
    fn add_others(
        &self,
        pairs: &[((i64, Fate), Sum)],
        names: &Names,
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) {
        for ((key, fate), sum) in pairs {
            if self.is_of_others(*key) {
                add(self.key_of_peer(peers_of(*key).0, *fate, names), *fate, sum);
            }
        }
    }

    /// Each record is at an inside end and at another one: it counts with the one that is asked for.
    fn add_ends(
        &self,
        peers: (&[End], &Sums),
        remotes: (&[End], &Sums),
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) -> Result<(), ChunkError> {
        let is_source = self.table == Table::Sources;
        let net = if is_source { self.filter.src } else { self.filter.dst };
        for ((ends, sums), is_inside) in [(peers, true), (remotes, false)] {
            for ((key, fate), sum) in &sums.0 {
                if (fate.inward != is_source) != is_inside {
                    continue;
                }
                let addr = end(ends, *key)?.addr.to_canonical();
                if net.is_none_or(|net| !fate.overflow && net.contains(&addr)) {
                    let key = match self.by {
                        Some(By::Src | By::Dst) => (!fate.overflow).then_some(Key::Address(addr)),
                        _ => self.key_of_fate(*fate),
                    };
                    add(key, *fate, sum);
                }
            }
        }
        Ok(())
    }

    /// `false`, and nothing is added: what is asked for is at inside ends and at others, and flows may
    /// have it at both.
    fn add_addresses(
        &self,
        peers: (&[End], &Sums),
        remotes: (&[End], &Sums),
        mut add: impl FnMut(Option<Key>, Fate, &Sum),
    ) -> Result<bool, ChunkError> {
        let net = self.filter.ip;
        let is_meant = |end: &End| net.is_none_or(|net| net.contains(&end.addr.to_canonical()));
        if peers.0.iter().any(is_meant) && remotes.0.iter().any(is_meant) {
            return Ok(false);
        }
        for (ends, sums) in [peers, remotes] {
            for ((key, fate), sum) in &sums.0 {
                if !fate.overflow && is_meant(&end(ends, *key)?) {
                    add(self.key_of_fate(*fate), *fate, sum);
                }
            }
        }
        Ok(true)
    }

    fn add_ports(&self, sums: &Sums, mut add: impl FnMut(Option<Key>, Fate, &Sum)) {
        let Filter { dst_port, protocol, .. } = self.filter;
        for ((key, fate), sum) in &sums.0 {
            let (number, port) = ((key >> 16) as u8, (key & 0xffff) as u16);
            let has_port = !fate.overflow && has_ports(number);
            if dst_port.is_some_and(|wanted| !has_port || wanted != port)
                || protocol.is_some_and(|wanted| fate.overflow || wanted != number)
            {
                continue;
            }
            let key = match self.by {
                Some(By::Protocol) => (!fate.overflow).then_some(Key::Protocol(number)),
                Some(By::DstPort) => has_port.then_some(Key::Port(port)),
                _ => self.key_of_fate(*fate),
            };
            add(key, *fate, sum);
        }
    }

    /// Whether the peers that the filter means are at inside ends only.
    fn is_of_insides(&self, remote_ends: Option<&[End]>) -> bool {
        match (&self.peers, remote_ends) {
            (None, _) => true,
            (Some(wanted), Some(ends)) => ends.iter().all(|end| !wanted.contains(&end.peer)),
            (Some(_), None) => false,
        }
    }

    fn key_of_peer(&self, peer: NameId, fate: Fate, names: &Names) -> Option<Key> {
        match self.by {
            Some(by @ (By::Peer | By::User)) => of_peer(by, peer, names),
            _ => self.key_of_fate(fate),
        }
    }

    fn key_of_fate(&self, fate: Fate) -> Option<Key> {
        (self.by == Some(By::Verdict)).then_some(Key::Verdict(fate.verdict))
    }
}
