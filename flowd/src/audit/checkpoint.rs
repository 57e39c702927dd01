//! What is left of entries whose time is over.

use super::{Hash, entry::Text};
use crate::seal::PublicKey;

/// What the text that is signed begins with.
const FORM: &str = "flowd-audit-checkpoint-1";

/// What a gateway's key says of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Which.
    pub key: PublicKey,
    /// Of [`Checkpoint::canonical`].
    pub bytes: [u8; 64],
}

/// The end of what was cut off: the first entry that is left goes on from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Id of the gateway.
    pub gateway: String,
    /// Of the last entry that was cut off; as many were there.
    pub seq: u64,
    /// When that entry was, in Unix milliseconds.
    pub at_ms: i64,
    /// Its hash.
    pub hash: Hash,
    /// When it was cut off, in Unix milliseconds.
    pub cut_ms: i64,
    /// `None`: nobody has signed it.
    pub signature: Option<Signature>,
}

impl Checkpoint {
    /// The key that has signed it; `None`: none has, or not this.
    pub fn signer(&self) -> Option<PublicKey> {
        let Signature { key, bytes } = self.signature.as_ref()?;
        key.has_signed(&self.canonical(), bytes).then_some(*key)
    }

    /// The bytes that are signed.
    pub fn canonical(&self) -> Vec<u8> {
        let Self { gateway, seq, at_ms, hash, cut_ms, signature: _ } = self;
        let mut text = Text::new(FORM);
        text.member(Some(gateway));
        text.member(Some(seq));
        text.member(Some(at_ms));
        text.member(Some(hash));
        text.member(Some(cut_ms));
        text.0
    }
}
