//! One page of a chunk: its columns as typed vectors, each decoded when it is first asked for.

use std::{array, cell::OnceCell};

use super::{
    Chunk, ChunkError, ColumnId, ColumnSet, Number, Selection,
    error::damaged,
    layout::Shape,
    narrow::{Left, at},
    opened::sum_up,
    runs::Runs,
};

/// A fact of a record that stands as a small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// Position in [`Chunk::peer_ends`].
    Peer,
    /// Position in [`Chunk::remote_ends`].
    Remote,
    /// Position in [`Chunk::kinds`].
    Kind,
    /// Position in [`Chunk::states`].
    State,
    /// The port of who opened the flow (the peer's, where nobody knows).
    SrcPort,
    /// The other port.
    DstPort,
}

impl Code {
    /// All, as they are numbered.
    pub const ALL: [Self; 6] =
        [Self::Peer, Self::Remote, Self::Kind, Self::State, Self::SrcPort, Self::DstPort];

    /// The column of a code, and its dictionary.
    pub(super) const fn place(self) -> (ColumnId, Option<ColumnId>) {
        match self {
            Self::Peer => (ColumnId::Peer, Some(ColumnId::PeerEnds)),
            Self::Remote => (ColumnId::Remote, Some(ColumnId::RemoteEnds)),
            Self::Kind => (ColumnId::Kind, Some(ColumnId::Kinds)),
            Self::State => (ColumnId::State, Some(ColumnId::States)),
            Self::SrcPort => (ColumnId::SrcPort, None),
            Self::DstPort => (ColumnId::DstPort, None),
        }
    }

    /// The columns that say it.
    pub fn columns(self) -> ColumnSet {
        let (column, dictionary) = self.place();
        [ColumnId::States, ColumnId::State, column].into_iter().chain(dictionary).collect()
    }
}

/// One page of a chunk, or what was left of it: some of its runs, each whole. What is decoded stays
/// until the page goes.
pub struct Page<'c> {
    pub(super) chunk: &'c Chunk,
    pub(super) number: usize,
    /// As it is in the chunk.
    pub(super) whole: Shape,
    /// `None`: all.
    pub(super) left: Option<Left>,
    pub(super) wanted: Selection,
    pub(super) runs: OnceCell<Runs>,
    pub(super) codes_of_runs: [OnceCell<Vec<u32>>; Code::ALL.len()],
    pub(super) codes: [OnceCell<Vec<u32>>; Code::ALL.len()],
    pub(super) numbers: [OnceCell<Vec<i64>>; Number::ALL.len()],
    pub(super) opens: OnceCell<Vec<bool>>,
}

impl<'c> Page<'c> {
    pub(super) fn new(chunk: &'c Chunk, number: usize, shape: Shape) -> Self {
        Self {
            chunk,
            number,
            whole: shape,
            left: None,
            wanted: Selection::All,
            runs: OnceCell::new(),
            codes_of_runs: array::from_fn(|_| OnceCell::new()),
            codes: array::from_fn(|_| OnceCell::new()),
            numbers: array::from_fn(|_| OnceCell::new()),
            opens: OnceCell::new(),
        }
    }

    /// The number of records, wanted or not.
    pub fn rows(&self) -> usize {
        self.left.as_ref().map_or(self.whole.rows, |left| left.records.len())
    }

    /// Which of them are wanted.
    pub fn wanted(&self) -> &Selection {
        &self.wanted
    }

    /// The chunk whose page it is.
    pub fn chunk(&self) -> &'c Chunk {
        self.chunk
    }

    /// The first and the last [`Code::Peer`] of the whole page; they ascend.
    pub fn peers(&self) -> (u32, u32) {
        self.whole.peers
    }

    /// A code of each record. Every one is a position in its dictionary, or a port.
    pub fn codes(&self, code: Code) -> Result<&[u32], ChunkError> {
        let made = once(&self.codes[code as usize], || match code {
            Code::State => self.states(),
            _ => self.each_record(self.codes_of_runs(code)?),
        })?;
        Ok(made)
    }

    /// A code of each run. [`Code::State`] is none.
    pub(super) fn codes_of_runs(&self, code: Code) -> Result<&[u32], ChunkError> {
        let made = once(&self.codes_of_runs[code as usize], || self.flow_codes(code))?;
        Ok(made)
    }

    /// A number of each record.
    pub fn numbers(&self, number: Number) -> Result<&[i64], ChunkError> {
        let made = once(&self.numbers[number as usize], || match number {
            Number::RecordId => self.record_ids(),
            Number::WindowEnd => self.window_ends(),
            Number::WindowStart => self.window_starts(),
            Number::FirstSeen => self.first_seens(),
            Number::LastSeen => self.last_seens(),
            Number::RxPackets => self.records(ColumnId::RxPackets),
            Number::RxBytes => self.records(ColumnId::RxBytes),
            Number::TxPackets => self.records(ColumnId::TxPackets),
            Number::TxBytes => self.records(ColumnId::TxBytes),
            Number::RxPacketsTotal => self.totals(ColumnId::RxPacketsBefore, Number::RxPackets),
            Number::RxBytesTotal => self.totals(ColumnId::RxBytesBefore, Number::RxBytes),
            Number::TxPacketsTotal => self.totals(ColumnId::TxPacketsBefore, Number::TxPackets),
            Number::TxBytesTotal => self.totals(ColumnId::TxBytesBefore, Number::TxBytes),
            Number::SrcPort => {
                Ok(self.codes(Code::SrcPort)?.iter().copied().map(i64::from).collect())
            }
            Number::DstPort => {
                Ok(self.codes(Code::DstPort)?.iter().copied().map(i64::from).collect())
            }
        })?;
        Ok(made)
    }

    /// Of each record, whether it is the first one of its flow.
    pub fn opens(&self) -> Result<&[bool], ChunkError> {
        let made = once(&self.opens, || {
            let opens: Vec<bool> = self.chunk.kinds()?.iter().map(|kind| kind.opens).collect();
            let kinds = self.codes(Code::Kind)?;
            let both = kinds.iter().zip(self.runs()?.iter());
            Ok(both.map(|(kind, (_, starts))| opens[*kind as usize] & starts).collect())
        })?;
        Ok(made)
    }

    pub(super) fn flow_count(&self) -> usize {
        self.left.as_ref().map_or(self.whole.flows, |left| left.flows.len())
    }

    pub(super) fn flows(&self, column: ColumnId) -> Result<Vec<i64>, ChunkError> {
        let left = self.left.as_ref().map(|left| &left.flows[..]);
        self.chunk.values(column, (self.number, self.whole.flows), left)
    }

    fn records(&self, column: ColumnId) -> Result<Vec<i64>, ChunkError> {
        let left = self.left.as_ref().map(|left| &left.records[..]);
        self.chunk.values(column, (self.number, self.whole.rows), left)
    }

    /// Those that are left of the values of all flows.
    fn left_of<T: Copy>(&self, flows: Vec<T>) -> Vec<T> {
        match &self.left {
            None => flows,
            Some(left) => at(&flows, &left.flows).collect(),
        }
    }

    /// They are known before a page is narrowed.
    pub(super) fn runs(&self) -> Result<&Runs, ChunkError> {
        once(&self.runs, || {
            let Shape { rows, flows, .. } = self.whole;
            let starts = self.chunk.starts((self.number, rows))?;
            if starts.first() != Some(&0) || starts.len() != flows {
                return damaged("a page has more or fewer flows than it says");
            }
            Ok(Runs::new(starts, rows))
        })
    }

    fn states(&self) -> Result<Vec<u32>, ChunkError> {
        let left = self.left.as_ref().map(|left| &left.records[..]);
        let limit = self.chunk.states()?.len();
        self.chunk.codes(ColumnId::State, (self.number, self.whole.rows), left, limit)
    }

    /// Values of flows as those of their records.
    pub(super) fn each_record<T: Copy>(&self, flows: &[T]) -> Result<Vec<T>, ChunkError> {
        Ok(self.runs()?.flow_of().iter().map(|flow| flows[usize::from(*flow)]).collect())
    }

    /// A code of each flow.
    fn flow_codes(&self, code: Code) -> Result<Vec<u32>, ChunkError> {
        let limit = match code {
            Code::Peer => self.chunk.peer_ends()?.len(),
            Code::Remote => self.chunk.remote_ends()?.len(),
            Code::Kind => self.chunk.kinds()?.len(),
            Code::State => self.chunk.states()?.len(),
            Code::SrcPort | Code::DstPort => usize::from(u16::MAX) + 1,
        };
        let (column, page) = (code.place().0, (self.number, self.whole.flows));
        if code != Code::Peer {
            let left = self.left.as_ref().map(|left| &left.flows[..]);
            return self.chunk.codes(column, page, left, limit);
        }
        // These are differences, which makes those before one a part of it.
        let mut codes = self.chunk.codes(column, page, None, limit)?;
        let (first, last) = self.whole.peers;
        let mut peer = 0_u32;
        let mut inside = true;
        for code in &mut codes {
            peer = peer.wrapping_add(*code);
            inside &= first <= peer && peer <= last;
            *code = peer;
        }
        if !inside {
            return damaged("a page has an inside end that it does not say");
        }
        Ok(self.left_of(codes))
    }

    /// The first id of each run.
    pub(super) fn first_ids(&self) -> Result<Vec<i64>, ChunkError> {
        let (least, _) = self.chunk.header().zones[Number::RecordId as usize];
        // These are differences from flow to flow, left or not.
        let page = (self.number, self.whole.flows);
        let mut firsts = self.chunk.values(ColumnId::FirstId, page, None)?;
        if let Some(first) = firsts.first_mut() {
            *first = first.wrapping_add(least);
        }
        sum_up(&mut firsts);
        Ok(self.left_of(firsts))
    }

    fn record_ids(&self) -> Result<Vec<i64>, ChunkError> {
        let (least, most) = self.chunk.header().zones[Number::RecordId as usize];
        let Shape { rows, flows, .. } = self.whole;
        let firsts = self.first_ids()?;
        let page = (self.number, rows - flows);
        let later = self.later()?;
        let mut later = self.chunk.values(ColumnId::LaterId, page, later.as_deref())?;
        // Behind the last one a step is looked at that nobody takes.
        later.push(0);
        let (mut before, mut steps) = (0_i64, 0);
        let mut inside = true;
        let ids = self.runs()?.iter().map(|(flow, starts)| {
            let (first, next) = (firsts[flow], before.wrapping_add(later[steps]));
            before = if starts { first } else { next };
            steps += usize::from(!starts);
            inside &= least <= before && before <= most;
            before
        });
        let ids = ids.collect();
        if inside { Ok(ids) } else { damaged("a record id is outside of what the header says") }
    }

    /// Where on the whole page those are that start no run, among themselves. `None`: all are left.
    fn later(&self) -> Result<Option<Vec<u16>>, ChunkError> {
        let Some(left) = &self.left else { return Ok(None) };
        let of = |(record, (flow, starts)): (&u16, (usize, bool))| {
            // So many runs have started up to there.
            (!starts).then(|| record - left.flows[flow] - 1)
        };
        Ok(Some(left.records.iter().zip(self.runs()?.iter()).filter_map(of).collect()))
    }

    fn window_ends(&self) -> Result<Vec<i64>, ChunkError> {
        self.ends_of(self.records(ColumnId::WindowEnd)?, self.numbers(Number::RecordId)?)
    }

    /// When windows ended that were so long before the clock of these ids.
    pub(super) fn ends_of(&self, mut ends: Vec<i64>, ids: &[i64]) -> Result<Vec<i64>, ChunkError> {
        let header = self.chunk.header();
        let (least, _) = header.zones[Number::RecordId as usize];
        let times_ms = self.chunk.times_ms()?;
        for (end, id) in ends.iter_mut().zip(ids) {
            let slot = (id.wrapping_sub(least).cast_unsigned() >> header.clock_shift) as usize;
            let Some(time_ms) = times_ms.get(slot) else {
                return damaged("its clock does not fit its ids");
            };
            *end = time_ms.wrapping_sub(*end);
        }
        Ok(ends)
    }

    fn window_starts(&self) -> Result<Vec<i64>, ChunkError> {
        let ends = self.numbers(Number::WindowEnd)?;
        let lengths = self.flows(ColumnId::WindowStart)?;
        let mut before = 0;
        let of = |(end, (flow, starts)): (&i64, (usize, bool))| {
            let first = end.wrapping_sub(lengths[flow]);
            let start = if starts { first } else { before };
            before = *end;
            start
        };
        Ok(ends.iter().zip(self.runs()?.iter()).map(of).collect())
    }

    fn first_seens(&self) -> Result<Vec<i64>, ChunkError> {
        let window_starts = self.numbers(Number::WindowStart)?;
        let mut flows = self.flows(ColumnId::FirstSeen)?;
        for (window_start, (flow, starts)) in window_starts.iter().zip(self.runs()?.iter()) {
            let first = window_start.wrapping_sub(flows[flow]);
            flows[flow] = if starts { first } else { flows[flow] };
        }
        self.each_record(&flows)
    }

    fn last_seens(&self) -> Result<Vec<i64>, ChunkError> {
        let ends = self.numbers(Number::WindowEnd)?;
        let mut values = self.records(ColumnId::LastSeen)?;
        for (value, end) in values.iter_mut().zip(ends) {
            *value = end.wrapping_sub(*value);
        }
        Ok(values)
    }

    fn totals(&self, before: ColumnId, window: Number) -> Result<Vec<i64>, ChunkError> {
        let windows = self.numbers(window)?;
        let before = self.flows(before)?;
        let mut total = 0_i64;
        let of = |(window, (flow, starts)): (&i64, (usize, bool))| {
            let base = if starts { before[flow] } else { total };
            total = base.wrapping_add(*window);
            total
        };
        Ok(windows.iter().zip(self.runs()?.iter()).map(of).collect())
    }
}

/// As [`OnceCell::get_or_init`], where it may fail.
fn once<T>(
    cell: &OnceCell<T>,
    make: impl FnOnce() -> Result<T, ChunkError>,
) -> Result<&T, ChunkError> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}
