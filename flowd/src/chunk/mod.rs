//! Column chunks: the form that most records of a segment have. Pure: rows and bytes come in and go
//! out; no clock, no file, no SQLite. `docs/store.md` has the reasons and the figures.
//!
//! - [`Encoded::of`] makes a header and a blob a column of rows in any order.
//! - [`Header::decode`] reads what can be said without columns. [`Chunk`] takes the columns that its
//!   reader loads, and refuses those that are not what the header says.
//! - A [`Predicate`] becomes a [`Plan`] of the chunk: dictionaries are judged once an entry. A plan
//!   narrows a [`Page`] to what is wanted of it. The columns of what is left are typed vectors,
//!   decoded when they are asked for.
//! - [`tally`] and [`sum_by`] add up what is selected; `Page::select_rows` gives whole records, and
//!   [`Picked`] as much of them as somebody needs.
//!
//! Whatever the bytes are, reading them ends with rows or a [`ChunkError`], and takes memory for at
//! most [`MAX_ROWS`] numbers a column.

mod bins;
mod bytes;
mod check;
mod column;
mod dictionary;
mod digest;
mod encode;
mod entry;
mod error;
mod header;
mod layout;
mod loaded;
mod members;
mod narrow;
mod number;
mod numbers;
mod opened;
mod page;
mod picked;
mod plane;
mod predicate;
mod row;
mod rows;
mod runs;
mod sheet;
mod sums;
mod tally;
#[cfg(test)]
mod tests;

pub use column::{ColumnId, ColumnSet};
pub use digest::{Blobs, Digest, EndSums, Summed, end, peers_of};
pub use encode::Encoded;
pub use entry::{End, Kind, State};
pub use error::ChunkError;
pub use header::Header;
pub use loaded::Loaded;
pub use members::{Member, Members};
pub use number::Number;
pub use opened::Chunk;
pub use page::{Code, Page};
pub use picked::Picked;
pub use predicate::{Judge, Plan, Predicate, Selection};
pub use row::{NameId, Row};
pub use sums::{Fate, Sum, Sums};
pub use tally::{count_by, sum, sum_by, tally, tally_columns};

/// The newest version of the format, and the first byte of every part of a chunk.
const VERSION: u8 = 1;
/// Records of a page; the last page of a chunk may have fewer.
pub const PAGE_ROWS: usize = 8_192;
/// Records of a chunk at most.
pub const MAX_ROWS: usize = 1 << 20;
