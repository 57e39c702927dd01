//! Why a chunk cannot be read.

use super::ColumnId;

/// Nothing of a chunk is used that has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A newer flowd made it.
    #[error("a chunk has version {found}; this flowd knows version {known}: update flowd")]
    Version {
        /// Its version.
        found: u8,
        /// The newest one that can be read.
        known: u8,
    },
    /// Its bytes are not what was written.
    #[error("a chunk is damaged: {0}; restore its segment from a backup")]
    Damaged(&'static str),
    /// The caller wants more in one chunk than it can take.
    #[error("{rows} records are too many for a chunk: it takes at most {max}", max = super::MAX_ROWS)]
    TooMany {
        /// How many they are.
        rows: usize,
    },
    /// The caller asks for a column that it has not loaded.
    #[error("column {0:?} of a chunk is not loaded")]
    NotLoaded(ColumnId),
}

/// Short for the parsers.
pub(super) fn damaged<T>(what: &'static str) -> Result<T, ChunkError> {
    Err(ChunkError::Damaged(what))
}
