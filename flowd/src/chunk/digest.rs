//! A digest: what many chunks add up to, by the properties that rankings are of.
//!
//! What would have more sums than [`RECORDS_PER_SUM`] allows is left out, and so is what one of the
//! chunks has left out.

use std::{
    array,
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use super::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Fate, MAX_ROWS, Sum, Sums, VERSION,
    bytes::{Reader, put_bytes},
    dictionary,
    error::damaged,
    header::version,
    plane::{Packer, Unpacker},
    sheet,
};

/// A digest has at most one sum of a kind for so many records.
const RECORDS_PER_SUM: usize = 16;
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
    /// Which peers were at both ends of a flow, the inside one first; ascending.
    pub pairs: Option<Vec<(NonZeroU32, NonZeroU32)>>,
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
    /// Which peers were at both ends of a flow.
    pub pairs: Option<&'a [(NonZeroU32, NonZeroU32)]>,
}

impl Digest {
    /// The columns of a chunk that it is made of.
    pub fn columns() -> ColumnSet {
        use ColumnId::{PeerEnds, PeerSums, PortSums, RemoteEnds, RemoteSums};
        let sums: ColumnSet =
            [PeerEnds, PeerSums, RemoteEnds, RemoteSums, PortSums].into_iter().collect();
        sums.and(Code::Peer.columns()).and(Code::Remote.columns())
    }

    /// Of these chunks, which have loaded [`Self::columns`].
    pub fn of(chunks: &[Chunk]) -> Result<Self, ChunkError> {
        let records: usize = chunks.iter().map(|chunk| chunk.header().rows()).sum();
        let most = (records / RECORDS_PER_SUM).max(FEW_SUMS);
        let totals = chunks.iter().flat_map(|chunk| chunk.header().totals());
        let mut ports = Some(BTreeMap::new());
        for chunk in chunks {
            if !chunk.header().has(ColumnId::PortSums) {
                ports = None;
            }
            let Some(ports) = &mut ports else { break };
            for (key, sum) in &chunk.sums(ColumnId::PortSums)?.0 {
                ports.entry(*key).or_insert_with(Sum::default).absorb(sum);
            }
        }
        let ports = ports.filter(|ports| ports.len() <= most);
        Ok(Self {
            totals: totals.map(|(fate, sum)| ((0, *fate), *sum)).collect(),
            peers: by_end(chunks, ColumnId::PeerSums, most)?,
            remotes: by_end(chunks, ColumnId::RemoteSums, most)?,
            ports: ports.map(|ports| Sums(ports.into_iter().collect())),
            pairs: pairs(chunks, most)?,
        })
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
        let (totals, ports) = (Some(alone(totals)), ports.as_ref().map(alone));
        let pairs = pairs.as_ref().map(|pairs| {
            let number = |id: &NonZeroU32| i64::from(id.get());
            let rows: Vec<_> = pairs.iter().map(|(a, b)| [number(a), number(b)]).collect();
            sealed(&[&sheet::encode(&rows, &mut packer)])
        });
        [totals, peers, remotes, ports, pairs]
    }

    /// Reads blobs, or refuses them. What was not asked for may be left out, totals too.
    pub fn decode(blobs: &Blobs) -> Result<Self, ChunkError> {
        let mut unpacker = Unpacker::new();
        let [totals, peers, remotes, ports, pairs] = blobs;
        let mut alone = |blob: &Option<Vec<u8>>| -> Result<Option<Sums>, ChunkError> {
            let Some(blob) = blob else { return Ok(None) };
            let [sums] = opened(blob)?;
            Sums::decode(version(sums)?, MAX_ROWS, &mut unpacker).map(Some)
        };
        let (totals, ports) = (alone(totals)?.unwrap_or_default(), alone(ports)?);
        let mut by_end = |blob: &Option<Vec<u8>>| -> Result<Option<EndSums>, ChunkError> {
            let Some(blob) = blob else { return Ok(None) };
            let [ends, sums] = opened(blob)?;
            Ok(Some(EndSums {
                ends: dictionary::decode(version(ends)?, MAX_ROWS, &mut unpacker)?,
                sums: Sums::decode(version(sums)?, MAX_ROWS, &mut unpacker)?,
            }))
        };
        let (peers, remotes) = (by_end(peers)?, by_end(remotes)?);
        let pairs = match pairs {
            None => None,
            Some(blob) => {
                let [rows] = opened(blob)?;
                let rows = sheet::decode::<2>(version(rows)?, MAX_ROWS, &mut unpacker)?;
                let id = |number: i64| u32::try_from(number).ok().and_then(NonZeroU32::new);
                let pairs: Option<Vec<_>> = rows.iter().map(|[a, b]| id(*a).zip(id(*b))).collect();
                Some(pairs.ok_or(ChunkError::Damaged("a peer has a number that none has"))?)
            }
        };
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
            pairs: self.pairs.as_deref(),
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
        if !chunk.header().has(column) {
            return Ok(None);
        }
        let ends = match column {
            ColumnId::PeerSums => chunk.peer_ends()?,
            _ => chunk.remote_ends()?,
        };
        for ((key, fate), sum) in &chunk.sums(column)?.0 {
            let end = End { resource: None, ..end(ends, *key)? };
            added.entry((end, *fate)).or_default().absorb(sum);
        }
        if added.len() > most {
            return Ok(None);
        }
    }
    let mut by_end = EndSums::default();
    for ((end, fate), sum) in added {
        if by_end.ends.last() != Some(&end) {
            by_end.ends.push(end);
        }
        by_end.sums.0.push(((by_end.ends.len() as i64 - 1, fate), sum));
    }
    Ok(Some(by_end))
}

/// The peers that were at both ends of records.
fn pairs(
    chunks: &[Chunk],
    most: usize,
) -> Result<Option<Vec<(NonZeroU32, NonZeroU32)>>, ChunkError> {
    let mut pairs = BTreeSet::new();
    for chunk in chunks {
        let (near, far) = (chunk.peer_ends()?, chunk.remote_ends()?);
        if far.iter().all(|end| end.peer.is_none()) {
            continue;
        }
        for page in chunk.pages() {
            let codes = page.codes(Code::Peer)?.iter().zip(page.codes(Code::Remote)?);
            let ends = codes.map(|(a, b)| (near[*a as usize].peer, far[*b as usize].peer));
            pairs.extend(ends.filter_map(|(a, b)| a.zip(b)));
        }
        if pairs.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(pairs.into_iter().collect()))
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
