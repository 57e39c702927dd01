//! A chunk that is being read: its header, and those of its columns that the reader has loaded.

use std::{
    cell::{OnceCell, RefCell},
    ops::RangeInclusive,
    sync::Arc,
};

use super::{
    ChunkError, ColumnId, ColumnSet, Header, Number, dictionary,
    entry::{End, Kind, State},
    error::damaged,
    header::{Seal, version},
    loaded::{Loaded, Part},
    members::Members,
    narrow::places,
    numbers::{Lane, Numbers},
    page::Page,
    plane::Unpacker,
    sums::Sums,
};

/// A chunk that is being read.
#[derive(Debug)]
pub struct Chunk {
    header: Arc<Header>,
    parts: [OnceCell<Loaded>; ColumnId::COUNT],
    unpacker: RefCell<Unpacker>,
}

impl Chunk {
    /// A chunk of which nothing is loaded yet.
    pub fn new(header: impl Into<Arc<Header>>) -> Self {
        let (header, unpacker) = (header.into(), RefCell::new(Unpacker::default()));
        Self { header, parts: [const { OnceCell::new() }; ColumnId::COUNT], unpacker }
    }

    /// The same, of which nothing is loaded.
    #[must_use]
    pub fn unread(&self) -> Self {
        Self::new(self.header.clone())
    }

    /// What is left of it without columns.
    pub fn into_header(self) -> Arc<Header> {
        self.header
    }

    /// What can be said without columns.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Those of the columns that are there and not loaded.
    pub fn missing(&self, of: ColumnSet) -> ColumnSet {
        of.iter()
            .filter(|column| self.header.has(*column) && self.parts[column.index()].get().is_none())
            .collect()
    }

    /// Takes a column, or refuses it: its length and checksum must be those of the header. One that
    /// is there already stays.
    pub fn load(&self, column: ColumnId, blob: Vec<u8>) -> Result<(), ChunkError> {
        let seal = self.header.seals[column.index()];
        if u32::try_from(blob.len()) != Ok(seal.length) {
            return damaged("a column has another length");
        }
        if Seal::of(&blob) != seal {
            return damaged("a column has another checksum");
        }
        let body = version(&blob)?;
        let rows = self.header.rows();
        let unpacker = &mut *self.unpacker.borrow_mut();
        let part = match column {
            ColumnId::PeerEnds | ColumnId::RemoteEnds => {
                Part::Ends(dictionary::decode(body, rows, unpacker)?)
            }
            ColumnId::Kinds => Part::Kinds(dictionary::decode(body, rows, unpacker)?),
            ColumnId::States => Part::States(dictionary::decode(body, rows, unpacker)?),
            ColumnId::Clock => Part::Times(times(&self.header, body, unpacker)?),
            ColumnId::Members => Part::Members(Members::decode(body)?),
            ColumnId::MinuteSums
            | ColumnId::PeerSums
            | ColumnId::RemoteSums
            | ColumnId::PortSums => Part::Sums(Sums::decode(body, rows, unpacker)?),
            _ => Part::Values(Numbers::parse(body, self.header.pages())?, blob),
        };
        if let (ColumnId::PeerEnds, Part::Ends(ends)) = (column, &part)
            && self.header.pages.iter().any(|page| page.peers.1 as usize >= ends.len())
        {
            return damaged("a page has an end that is in no dictionary");
        }
        let loaded = || Loaded::new(seal, column, part, &self.header.pages);
        self.parts[column.index()].get_or_init(loaded);
        Ok(())
    }

    /// A column that is loaded, for others to share.
    pub fn loaded(&self, column: ColumnId) -> Option<&Loaded> {
        self.parts[column.index()].get()
    }

    /// Takes a column that was loaded of the same chunk before; one of another chunk is left alone.
    pub fn share(&self, column: ColumnId, loaded: Loaded) {
        if loaded.seal == self.header.seals[column.index()] {
            self.parts[column.index()].get_or_init(|| loaded);
        }
    }

    /// The inside ends, ascending.
    pub fn peer_ends(&self) -> Result<&[End], ChunkError> {
        self.ends(ColumnId::PeerEnds)
    }

    /// The other ends.
    pub fn remote_ends(&self) -> Result<&[End], ChunkError> {
        self.ends(ColumnId::RemoteEnds)
    }

    fn ends(&self, column: ColumnId) -> Result<&[End], ChunkError> {
        match self.part(column)? {
            Part::Ends(ends) => Ok(ends),
            _ => Err(ChunkError::NotLoaded(column)),
        }
    }

    /// What flows are like.
    pub fn kinds(&self) -> Result<&[Kind], ChunkError> {
        match self.part(ColumnId::Kinds)? {
            Part::Kinds(kinds) => Ok(kinds),
            _ => Err(ChunkError::NotLoaded(ColumnId::Kinds)),
        }
    }

    /// What records are like.
    pub fn states(&self) -> Result<&[State], ChunkError> {
        match self.part(ColumnId::States)? {
            Part::States(states) => Ok(states),
            _ => Err(ChunkError::NotLoaded(ColumnId::States)),
        }
    }

    /// The membership filter.
    pub fn members(&self) -> Result<&Members, ChunkError> {
        match self.part(ColumnId::Members)? {
            Part::Members(members) => Ok(members),
            _ => Err(ChunkError::NotLoaded(ColumnId::Members)),
        }
    }

    /// One of the four columns of sums. The keys are positions in [`Self::peer_ends`] and
    /// [`Self::remote_ends`], `protocol << 16 | port`, and steps of [`Header::step_minutes`].
    pub fn sums(&self, column: ColumnId) -> Result<&Sums, ChunkError> {
        match self.part(column)? {
            Part::Sums(sums) => Ok(sums),
            _ => Err(ChunkError::NotLoaded(column)),
        }
    }

    /// A page, nothing of which is decoded yet.
    pub fn page(&self, number: usize) -> Option<Page<'_>> {
        Some(Page::new(self, number, *self.header.pages.get(number)?))
    }

    /// All pages.
    pub fn pages(&self) -> impl Iterator<Item = Page<'_>> {
        let shapes = self.header.pages.iter().enumerate();
        shapes.map(|(number, shape)| Page::new(self, number, *shape))
    }

    pub(super) fn times_ms(&self) -> Result<&[i64], ChunkError> {
        match self.part(ColumnId::Clock)? {
            Part::Times(times) => Ok(times),
            _ => Err(ChunkError::NotLoaded(ColumnId::Clock)),
        }
    }

    /// The numbers of a column on a page, as they stand there: `count`, of which `places` are
    /// wanted.
    pub(super) fn values(
        &self,
        column: ColumnId,
        page: (usize, usize),
        places: Option<&[u16]>,
    ) -> Result<Vec<i64>, ChunkError> {
        self.read(column, page, places)
    }

    /// The same of a column that has codes, all of which are below `limit`.
    pub(super) fn codes(
        &self,
        column: ColumnId,
        page: (usize, usize),
        places: Option<&[u16]>,
        limit: usize,
    ) -> Result<Vec<u32>, ChunkError> {
        if !self.numbers(column)?.0.is_short() {
            return damaged("a column of codes has other numbers");
        }
        let codes: Vec<u32> = self.read(column, page, places)?;
        let most = codes.iter().copied().max().unwrap_or(0);
        if codes.is_empty() || (most as usize) < limit {
            Ok(codes)
        } else {
            damaged("a value is in no dictionary")
        }
    }

    /// Where on a page, which has `count` records, runs start.
    pub(super) fn starts(&self, (page, count): (usize, usize)) -> Result<Vec<u16>, ChunkError> {
        let states = self.states()?;
        let start = |codes: RangeInclusive<i64>| {
            let (first, last) = codes.into_inner();
            let states = states.get(usize::try_from(first).ok()?..=usize::try_from(last).ok()?)?;
            let start = states.first()?.starts;
            states.iter().all(|state| state.starts == start).then_some(start)
        };
        let starts = self.judged(ColumnId::State, (page, count), start)?;
        Ok(places(&starts))
    }

    /// Of the numbers of a column on a page, of which there are so many, what `judge` says of each.
    pub(super) fn judged(
        &self,
        column: ColumnId,
        page: (usize, usize),
        judge: impl Fn(RangeInclusive<i64>) -> Option<bool>,
    ) -> Result<Vec<bool>, ChunkError> {
        let (numbers, body) = self.numbers(column)?;
        if !numbers.is_short() {
            return damaged("a column of codes has other numbers");
        }
        numbers.judged(body, page, judge, &mut self.unpacker.borrow_mut())
    }

    fn read<T: Lane>(
        &self,
        column: ColumnId,
        (page, count): (usize, usize),
        places: Option<&[u16]>,
    ) -> Result<Vec<T>, ChunkError> {
        let (numbers, body) = self.numbers(column)?;
        let mut out = Vec::with_capacity(places.map_or(count, <[u16]>::len));
        let unpacker = &mut *self.unpacker.borrow_mut();
        match places {
            None => numbers.page(body, page, count, unpacker, &mut out)?,
            Some(places) => numbers.some(body, (page, count), places, unpacker, &mut out)?,
        }
        Ok(out)
    }

    fn numbers(&self, column: ColumnId) -> Result<(&Numbers, &[u8]), ChunkError> {
        match self.part(column)? {
            Part::Values(numbers, blob) => Ok((numbers, &blob[1..])),
            _ => Err(ChunkError::NotLoaded(column)),
        }
    }

    fn part(&self, column: ColumnId) -> Result<&Part, ChunkError> {
        self.loaded(column).map(|loaded| &*loaded.part).ok_or(ChunkError::NotLoaded(column))
    }
}

/// The clock, which has an entry for every step between the lowest and the highest id.
fn times(header: &Header, body: &[u8], unpacker: &mut Unpacker) -> Result<Vec<i64>, ChunkError> {
    let (first, last) = header.zones[Number::RecordId as usize];
    let span = last.wrapping_sub(first).cast_unsigned() >> header.clock_shift;
    let rows = header.rows();
    let count = match usize::try_from(span) {
        _ if rows == 0 => 0,
        Ok(span) if span <= rows => span + 1,
        _ => return damaged("its clock does not fit its ids"),
    };
    let mut times = Vec::with_capacity(count);
    Numbers::parse(body, 1)?.page(body, 0, count, unpacker, &mut times)?;
    sum_up(&mut times);
    Ok(times)
}

/// Differences to values.
pub(super) fn sum_up(values: &mut [i64]) {
    let mut before = 0_i64;
    for value in values {
        before = before.wrapping_add(*value);
        *value = before;
    }
}
