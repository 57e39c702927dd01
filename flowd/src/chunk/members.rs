//! The membership filter: says of an address, a peer or a flow that it is surely not in a chunk.
//!
//! A split-block Bloom filter: each key sets one bit in each of the eight words of one block, so
//! that asking touches one cache line. It never denies what is there, and takes about one of a
//! hundred others for a member.

use std::net::Ipv6Addr;

use super::{ChunkError, NameId, VERSION, error::damaged};

/// About one false answer of a hundred.
const BITS_PER_KEY: usize = 11;
const BLOCK_BYTES: usize = 32;
/// Odd numbers, from the Parquet format's filter of the same kind.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// What may be in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// An address of either end; IPv4 is v4-mapped.
    Address(Ipv6Addr),
    /// A peer of either end.
    Peer(NameId),
    /// A flow that was open before: the Unix milliseconds of its first packet.
    Older(i64),
}

impl Member {
    fn hash(self) -> u64 {
        let (tag, bits) = match self {
            Self::Address(addr) => (1, addr.to_bits()),
            Self::Peer(peer) => (2, u128::from(peer.map_or(0, std::num::NonZeroU32::get))),
            Self::Older(first_seen_ms) => (3, u128::from(first_seen_ms.cast_unsigned())),
        };
        mix(mix((bits >> 64) as u64 ^ tag) ^ bits as u64)
    }
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// A filter that can be asked.
#[derive(Clone, Debug)]
pub struct Members {
    blocks: Vec<[u32; 8]>,
}

impl Members {
    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.blocks[..])
    }

    /// A filter of these keys.
    pub(super) fn of(keys: &[Member]) -> Self {
        let count = (keys.len() * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8).max(1);
        let mut members = Self { blocks: vec![[0; 8]; count] };
        for key in keys {
            let (block, bits) = members.place(*key);
            for (word, bit) in members.blocks[block].iter_mut().zip(bits) {
                *word |= bit;
            }
        }
        members
    }

    /// Whether it may be in the chunk; `false` is certain.
    pub fn may_have(&self, key: Member) -> bool {
        let (block, bits) = self.place(key);
        self.blocks[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    fn place(&self, key: Member) -> (usize, [u32; 8]) {
        let hash = key.hash();
        let block = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        (block as usize, SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27)))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let words = self.blocks.as_flattened().iter().flat_map(|word| word.to_le_bytes());
        std::iter::once(VERSION).chain(words).collect()
    }

    /// Reads what [`Self::encode`] wrote after its version.
    pub(super) fn decode(body: &[u8]) -> Result<Self, ChunkError> {
        let (blocks, rest) = body.as_chunks::<BLOCK_BYTES>();
        if blocks.is_empty() || !rest.is_empty() {
            return damaged("its membership filter has an odd length");
        }
        let block = |bytes: &[u8; BLOCK_BYTES]| {
            let mut words = [0; 8];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            words
        };
        Ok(Self { blocks: blocks.iter().map(block).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Member, Members};

    fn address(number: u32) -> Member {
        Member::Address(Ipv4Addr::from_bits(number.wrapping_mul(0x0101_0107)).to_ipv6_mapped())
    }

    #[test]
    fn what_is_there_is_never_denied_and_little_else_is_taken_for_it() {
        let keys: Vec<Member> = (0..6_000).map(address).collect();
        let members = Members::decode(&Members::of(&keys).encode()[1..]).unwrap();
        assert!(keys.iter().all(|key| members.may_have(*key)));
        let wrong = (6_000..106_000).filter(|number| members.may_have(address(*number))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000");
    }

    #[test]
    fn kinds_of_members_are_kept_apart() {
        let members = Members::of(&[Member::Older(7)]);
        assert!(members.may_have(Member::Older(7)));
        assert!(!members.may_have(Member::Peer(std::num::NonZeroU32::new(7))));
        assert!(!Members::of(&[]).may_have(Member::Older(7)));
    }
}
