//! A digest: what many chunks add up to, by the properties that rankings are of.
//!
//! - What would have more sums than [`RECORDS_PER_SUM`] allows is left out. What a chunk has left out,
//!   which a small one does soon, is added up of its records.
//! - Digests that follow each other add up to one of all their chunks.

use std::{array, collections::BTreeMap, num::NonZeroU32};

use super::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Fate, Kind, MAX_ROWS, NameId, Number, Page,
    Sum, Sums, VERSION,
    bytes::{Reader, put_bytes},
    dictionary,
    error::damaged,
    header::version,
    plane::{Packer, Unpacker},
    tally::tally_columns,
};
use crate::flows::{Counters, Initiator};

/// A digest has at most one sum of a kind for so many records, as a chunk.
const RECORDS_PER_SUM: usize = 8;
/// So many it has however few records there are.
const FEW_SUMS: usize = 8;

/// Sums by end; their keys are positions among the ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndSums {
    /// Ascending; without resources.
    pub ends: Vec<End>,
    /// Of the records at each.
    pub sums: Sums,
}

/// What the records of some chunks add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// By fate alone: the keys are zero.
    pub totals: Sums,
    /// By inside end.
    pub peers: Option<EndSums>,
    /// By other end.
    pub remotes: Option<EndSums>,
    /// By `protocol << 16 | port`.
    pub ports: Option<Sums>,
    /// Of the records whose other end is a peer, by `inside peer << 32 | that peer`; zero inside: none.
    pub pairs: Option<Sums>,
}

/// The parts of a digest as blobs, in the order of its fields.
pub type Blobs = [Option<Vec<u8>>; 5];

/// Sums of a chunk or of a digest, as far as they are loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summed<'a> {
    /// By inside end.
    pub peers: Option<(&'a [End], &'a Sums)>,
    /// By other end.
    pub remotes: Option<(&'a [End], &'a Sums)>,
    /// By `protocol << 16 | port`.
    pub ports: Option<&'a Sums>,
    /// Of the records whose other end is a peer, by `inside peer << 32 | that peer`.
    pub pairs: Option<&'a Sums>,
}

impl Digest {
    /// The columns of a chunk that it is made of.
    pub fn columns() -> ColumnSet {
        use ColumnId::{PeerEnds, PeerSums, PortSums, RemoteEnds, RemoteSums};
        let sums: ColumnSet =
            [PeerEnds, PeerSums, RemoteEnds, RemoteSums, PortSums].into_iter().collect();
        let codes = [Code::Peer, Code::Remote, Code::DstPort].map(Code::columns);
        codes.into_iter().fold(sums.and(tally_columns()), ColumnSet::and)
    }

    /// Of these chunks, which have loaded [`Self::columns`].
    pub fn of(chunks: &[Chunk]) -> Result<Self, ChunkError> {
        let records: usize = chunks.iter().map(|chunk| chunk.header().rows()).sum();
        Self::within(chunks, (records / RECORDS_PER_SUM).clamp(FEW_SUMS, MAX_ROWS))
    }

    /// The same, and nothing is left out.
    pub fn whole(chunks: &[Chunk]) -> Result<Self, ChunkError> {
        Self::within(chunks, usize::MAX)
    }

    /// With at most so many sums of a kind.
    fn within(chunks: &[Chunk], most: usize) -> Result<Self, ChunkError> {
        let totals = chunks.iter().flat_map(|chunk| chunk.header().totals());
        Ok(Self {
            totals: totals.map(|(fate, sum)| ((0, *fate), *sum)).collect(),
            peers: by_end(chunks, ColumnId::PeerSums, most)?,
            remotes: by_end(chunks, ColumnId::RemoteSums, most)?,
            ports: ports(chunks, most)?,
            pairs: pairs(chunks, most)?,
        })
    }

    /// Of all that these are of.
    pub fn merged(digests: &[Self]) -> Result<Self, ChunkError> {
        let all = |of: fn(&Self) -> Option<&Sums>| -> Option<Sums> {
            let sums = digests.iter().map(of).collect::<Option<Vec<_>>>()?;
            Some(sums.into_iter().flat_map(|sums| sums.0.iter().copied()).collect())
        };
        let by_end = |of: fn(&Self) -> Option<&EndSums>| -> Result<Option<EndSums>, ChunkError> {
            let Some(sums) = digests.iter().map(of).collect::<Option<Vec<_>>>() else {
                return Ok(None);
            };
            let mut added = BTreeMap::new();
            for EndSums { ends, sums } in sums {
                add_ends(ends, sums, &mut added)?;
            }
            Ok(Some(EndSums::of(added)))
        };
        Ok(Self {
            totals: all(|digest| Some(&digest.totals)).unwrap_or_default(),
            peers: by_end(|digest| digest.peers.as_ref())?,
            remotes: by_end(|digest| digest.remotes.as_ref())?,
            ports: all(|digest| digest.ports.as_ref()),
            pairs: all(|digest| digest.pairs.as_ref()),
        })
    }

    /// Whether it says nothing else than one that leaves nothing out.
    pub fn is_part_of(&self, whole: &Self) -> bool {
        let Self { totals, peers, remotes, ports, pairs } = self;
        *totals == whole.totals
            && (peers.is_none() || *peers == whole.peers)
            && (remotes.is_none() || *remotes == whole.remotes)
            && (ports.is_none() || *ports == whole.ports)
            && (pairs.is_none() || *pairs == whole.pairs)
    }

    /// As blobs, each with its version and checksum.
    pub fn encode(&self) -> Blobs {
        let Self { totals, peers, remotes, ports, pairs } = self;
        let mut packer = Packer::new();
        let mut by_end = |of: &Option<EndSums>| {
            of.as_ref().map(|EndSums { ends, sums }| {
                let (ends, sums) =
                    (dictionary::encode(ends, &mut packer), sums.encode(&mut packer));
                sealed(&[&ends, &sums])
            })
        };
        let (peers, remotes) = (by_end(peers), by_end(remotes));
        let mut alone = |sums: &Sums| sealed(&[&sums.encode(&mut packer)]);
        let totals = Some(alone(totals));
        [totals, peers, remotes, ports.as_ref().map(&mut alone), pairs.as_ref().map(&mut alone)]
    }

    /// Reads blobs, or refuses them. What was not asked for may be left out, totals too.
    pub fn decode(blobs: &Blobs) -> Result<Self, ChunkError> {
        Self::decode_some(blobs, |_end| true, |_key| true)
    }

    /// The same with the sums by the ends and pairs that are wanted, and all others.
    pub fn decode_some(
        blobs: &Blobs,
        is_wanted: impl Fn(&End) -> bool,
        is_wanted_pair: impl Fn(i64) -> bool,
    ) -> Result<Self, ChunkError> {
        let mut unpacker = Unpacker::default();
        let [totals, peers, remotes, ports, pairs] = blobs;
        let mut alone = |blob: &Option<Vec<u8>>, is_wanted: &dyn Fn(i64) -> bool| {
            let Some(blob) = blob else { return Ok(None) };
            let [sums] = opened(blob)?;
            Sums::decode_some(version(sums)?, MAX_ROWS, &mut unpacker, is_wanted).map(Some)
        };
        let totals = alone(totals, &|_key| true)?.unwrap_or_default();
        let (ports, pairs) = (alone(ports, &|_key| true)?, alone(pairs, &is_wanted_pair)?);
        let mut by_end = |blob: &Option<Vec<u8>>| -> Result<Option<EndSums>, ChunkError> {
            let Some(blob) = blob else { return Ok(None) };
            let [ends, sums] = opened(blob)?;
            let ends = dictionary::decode(version(ends)?, MAX_ROWS, &mut unpacker)?;
            let are_wanted: Vec<bool> = ends.iter().map(&is_wanted).collect();
            // Of a key that stands for no end, whoever looks for its end says so.
            let is_wanted = |key: i64| {
                let end = usize::try_from(key).ok().and_then(|key| are_wanted.get(key));
                end.is_none_or(|is_wanted| *is_wanted)
            };
            let sums = Sums::decode_some(version(sums)?, MAX_ROWS, &mut unpacker, is_wanted)?;
            Ok(Some(EndSums { ends, sums }))
        };
        let (peers, remotes) = (by_end(peers)?, by_end(remotes)?);
        Ok(Self { totals, peers, remotes, ports, pairs })
    }

    /// Its sums.
    pub fn summed(&self) -> Summed<'_> {
        fn by_end(EndSums { ends, sums }: &EndSums) -> (&[End], &Sums) {
            (ends, sums)
        }
        Summed {
            peers: self.peers.as_ref().map(by_end),
            remotes: self.remotes.as_ref().map(by_end),
            ports: self.ports.as_ref(),
            pairs: self.pairs.as_ref(),
        }
    }
}

impl Chunk {
    /// Its sums, as far as they are loaded.
    pub fn summed(&self) -> Summed<'_> {
        let by_end = |ends: Result<_, ChunkError>, column| ends.ok().zip(self.sums(column).ok());
        Summed {
            peers: by_end(self.peer_ends(), ColumnId::PeerSums),
            remotes: by_end(self.remote_ends(), ColumnId::RemoteSums),
            ports: self.sums(ColumnId::PortSums).ok(),
            pairs: None,
        }
    }
}

/// The sums of one column, by ends that mean the same in every chunk.
fn by_end(chunks: &[Chunk], column: ColumnId, most: usize) -> Result<Option<EndSums>, ChunkError> {
    let mut added: BTreeMap<(End, Fate), Sum> = BTreeMap::new();
    for chunk in chunks {
        let (ends, code) = match column {
            ColumnId::PeerSums => (chunk.peer_ends()?, Code::Peer),
            _ => (chunk.remote_ends()?, Code::Remote),
        };
        if chunk.header().has(column) {
            add_ends(ends, chunk.sums(column)?, &mut added)?;
        } else {
            for page in chunk.pages() {
                let codes = page.codes(code)?;
                let end = |at: usize| End { resource: None, ..ends[codes[at] as usize] };
                add_records(&page, |at, _kind| Some(end(at)), &mut added)?;
            }
        }
        if added.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(EndSums::of(added)))
}

/// The sums by protocol and port.
fn ports(chunks: &[Chunk], most: usize) -> Result<Option<Sums>, ChunkError> {
    let mut added: BTreeMap<(i64, Fate), Sum> = BTreeMap::new();
    for chunk in chunks {
        if chunk.header().has(ColumnId::PortSums) {
            for (key, sum) in &chunk.sums(ColumnId::PortSums)?.0 {
                added.entry(*key).or_default().absorb(sum);
            }
        } else {
            for page in chunk.pages() {
                let ports = page.codes(Code::DstPort)?;
                let key = |at: usize, kind: &Kind| {
                    Some(i64::from(kind.protocol) << 16 | i64::from(ports[at]))
                };
                add_records(&page, key, &mut added)?;
            }
        }
        if added.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(Sums(added.into_iter().collect())))
}

fn add_ends(
    ends: &[End],
    sums: &Sums,
    added: &mut BTreeMap<(End, Fate), Sum>,
) -> Result<(), ChunkError> {
    for ((key, fate), sum) in &sums.0 {
        let end = End { resource: None, ..end(ends, *key)? };
        added.entry((end, *fate)).or_default().absorb(sum);
    }
    Ok(())
}

impl EndSums {
    fn of(added: BTreeMap<(End, Fate), Sum>) -> Self {
        let mut by_end = Self::default();
        for ((end, fate), sum) in added {
            if by_end.ends.last() != Some(&end) {
                by_end.ends.push(end);
            }
            by_end.sums.0.push(((by_end.ends.len() as i64 - 1, fate), sum));
        }
        by_end
    }
}

/// The sums of the records whose other end is a peer.
fn pairs(chunks: &[Chunk], most: usize) -> Result<Option<Sums>, ChunkError> {
    let mut added: BTreeMap<(i64, Fate), Sum> = BTreeMap::new();
    for chunk in chunks {
        if chunk.remote_ends()?.iter().any(|end| end.peer.is_some()) {
            chunk.pages().try_for_each(|page| add_pairs(&page, &mut added))?;
        }
        if added.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(Sums(added.into_iter().collect())))
}

fn add_pairs(page: &Page<'_>, added: &mut BTreeMap<(i64, Fate), Sum>) -> Result<(), ChunkError> {
    let (near, far) = (page.chunk().peer_ends()?, page.chunk().remote_ends()?);
    let (peers, remotes) = (page.codes(Code::Peer)?, page.codes(Code::Remote)?);
    let key = |at: usize, _kind: &Kind| {
        let remote = far[remotes[at] as usize].peer?;
        let peer = near[peers[at] as usize].peer.map_or(0, NonZeroU32::get);
        Some(pair(peer, remote))
    };
    add_records(page, key, added)
}

/// Adds the records of a page that have a key.
fn add_records<K: Ord>(
    page: &Page<'_>,
    key: impl Fn(usize, &Kind) -> Option<K>,
    added: &mut BTreeMap<(K, Fate), Sum>,
) -> Result<(), ChunkError> {
    let (kinds, codes) = (page.chunk().kinds()?, page.codes(Code::Kind)?);
    let opens = page.opens()?;
    let [rx_packets, rx_bytes, tx_packets, tx_bytes] = [
        page.numbers(Number::RxPackets)?,
        page.numbers(Number::RxBytes)?,
        page.numbers(Number::TxPackets)?,
        page.numbers(Number::TxBytes)?,
    ];
    for at in 0..page.rows() {
        let kind = &kinds[codes[at] as usize];
        let Some(key) = key(at, kind) else { continue };
        let fate = Fate {
            verdict: kind.verdict,
            overflow: kind.overflow,
            inward: kind.initiator == Initiator::Remote,
        };
        let sum = Sum {
            records: 1,
            flows: u64::from(opens[at] && !kind.overflow),
            counters: Counters {
                rx_packets: rx_packets[at].cast_unsigned(),
                rx_bytes: rx_bytes[at].cast_unsigned(),
                tx_packets: tx_packets[at].cast_unsigned(),
                tx_bytes: tx_bytes[at].cast_unsigned(),
            },
        };
        added.entry((key, fate)).or_default().absorb(&sum);
    }
    Ok(())
}

/// The key of two peers.
fn pair(peer: u32, remote: NonZeroU32) -> i64 {
    i64::from(peer) << 32 | i64::from(remote.get())
}

/// The two peers of a key: the inside one, where there is one, and the other.
pub fn peers_of(key: i64) -> (NameId, NameId) {
    (NonZeroU32::new((key >> 32) as u32), NonZeroU32::new(key as u32))
}

/// The end that the key of a sum stands for.
pub fn end(ends: &[End], key: i64) -> Result<End, ChunkError> {
    let end = usize::try_from(key).ok().and_then(|key| ends.get(key));
    end.copied().ok_or(ChunkError::Damaged("a sum is of an end that is in no dictionary"))
}

fn sealed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![VERSION];
    parts.iter().for_each(|part| put_bytes(&mut out, part));
    let crc = crc32fast::hash(&out);
    out.extend(crc.to_le_bytes());
    out
}

/// What [`sealed`] was made of.
fn opened<const COUNT: usize>(blob: &[u8]) -> Result<[&[u8]; COUNT], ChunkError> {
    let body = version(blob)?;
    let Some((body, crc)) = body.split_last_chunk() else {
        return damaged("a digest is cut short");
    };
    if crc32fast::hash(&blob[..blob.len() - crc.len()]) != u32::from_le_bytes(*crc) {
        return damaged("a digest has another checksum");
    }
    let mut reader = Reader(body);
    let mut parts: [&[u8]; COUNT] = array::from_fn(|_| &[][..]);
    for part in &mut parts {
        *part = reader.bytes()?;
    }
    reader.end()?;
    Ok(parts)
}
