//! The segments of a query, one after the other, while retention takes the oldest away.
//!
//! - What goes before anything was read is not missed: so would it be, had the query come later.
//! - What goes behind that would leave a hole: the query ends and says so.
//! - Where the newest are read first, what goes is not missed as long as nothing older is there.

use std::{
    path::{Path, PathBuf},
    vec,
};

use super::{ReadError, Reader, columns::Allowance, view::Segment};
use crate::flows::Filter;

/// How far the records were read: what one query leaves to the next.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// The id of the last record.
    pub(super) after: u64,
    /// Where it is, and those behind it.
    pub(super) segment: Option<PathBuf>,
}

impl Reached {
    /// Nothing was read yet; the first record is the one behind this id.
    pub fn new(after: u64) -> Self {
        Self { after, segment: None }
    }
}

impl Reader {
    /// The segments that can have records of the range, from where the query before ended: an
    /// error, when what it read has gone since.
    pub(super) fn opened_on(
        &self,
        filter: &Filter,
        reached: &Reached,
    ) -> Result<Opened<'_>, ReadError> {
        let mut paths = self.paths(filter)?;
        if let Some(current) = &reached.segment {
            if !current.exists() {
                return Err(ReadError::Removed);
            }
            paths.retain(|path| path >= current);
        }
        Ok(Opened { has_begun: reached.segment.is_some(), ..Opened::new(self, paths) })
    }
}

/// Opens them, oldest first unless it is told otherwise.
pub(super) struct Opened<'a> {
    reader: &'a Reader,
    paths: vec::IntoIter<PathBuf>,
    /// Whether one was there.
    has_begun: bool,
    is_newest_first: bool,
    /// For the columns of all of them.
    allowance: Allowance,
}

impl<'a> Opened<'a> {
    /// These, none of which was there yet.
    pub(super) fn new(reader: &'a Reader, paths: Vec<PathBuf>) -> Self {
        let (paths, allowance) = (paths.into_iter(), reader.allowance());
        Self { reader, paths, has_begun: false, is_newest_first: false, allowance }
    }

    /// The same in the other order.
    pub(super) fn newest_first(mut self) -> Self {
        self.paths.as_mut_slice().reverse();
        Self { is_newest_first: true, ..self }
    }

    /// The next one.
    pub(super) fn ahead(&self) -> Option<&Path> {
        self.paths.as_slice().first().map(PathBuf::as_path)
    }

    /// Whether what is left would lie behind a hole.
    fn has_more(&self) -> bool {
        !self.is_newest_first || self.paths.as_slice().iter().any(|path| path.exists())
    }
}

impl Iterator for Opened<'_> {
    type Item = Result<(PathBuf, Segment), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let path = self.paths.next()?;
            match self.reader.segment(&path, &self.allowance) {
                Ok(Some(segment)) => {
                    self.has_begun = true;
                    return Some(Ok((path, segment)));
                }
                Ok(None) if self.has_begun && !path.exists() && self.has_more() => {
                    return Some(Err(ReadError::Removed));
                }
                // It is only just being made, or went before anything was read.
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
#[path = "opened_tests.rs"]
mod tests;
