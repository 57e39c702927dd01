//! One page of a chunk: its columns as typed vectors, each decoded when it is first asked for.

use std::{array, cell::OnceCell};

use super::{
    Chunk, ChunkError, ColumnId, ColumnSet, Number,
    chunk::sum_up,
    error::damaged,
    layout::Shape,
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
    const COUNT: usize = 6;

    /// The column of a code, and its dictionary.
    const fn place(self) -> (ColumnId, Option<ColumnId>) {
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

/// The runs of a page.
struct Runs {
    /// Of each record, the position of its flow on the page.
    flow_of: Vec<u16>,
    /// Of each record, whether it starts a run.
    starts: Vec<bool>,
    states: Vec<u32>,
}

/// One page of a chunk. What is decoded stays until the page goes.
pub struct Page<'c> {
    chunk: &'c Chunk,
    number: usize,
    shape: Shape,
    runs: OnceCell<Runs>,
    codes: [OnceCell<Vec<u32>>; Code::COUNT],
    numbers: [OnceCell<Vec<i64>>; Number::ALL.len()],
    opens: OnceCell<Vec<bool>>,
}

impl<'c> Page<'c> {
    pub(super) fn new(chunk: &'c Chunk, number: usize, shape: Shape) -> Self {
        Self {
            chunk,
            number,
            shape,
            runs: OnceCell::new(),
            codes: array::from_fn(|_| OnceCell::new()),
            numbers: array::from_fn(|_| OnceCell::new()),
            opens: OnceCell::new(),
        }
    }

    /// The number of records.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// The chunk whose page it is.
    pub fn chunk(&self) -> &'c Chunk {
        self.chunk
    }

    /// The first and the last [`Code::Peer`]; they ascend.
    pub fn peers(&self) -> (u32, u32) {
        self.shape.peers
    }

    /// A code of each record. Every one is a position in its dictionary, or a port.
    pub fn codes(&self, code: Code) -> Result<&[u32], ChunkError> {
        if code == Code::State {
            return Ok(&self.runs()?.states);
        }
        let made = once(&self.codes[code as usize], || {
            let flows = self.flow_codes(code)?;
            let flow_of = &self.runs()?.flow_of;
            Ok(flow_of.iter().map(|flow| flows[usize::from(*flow)]).collect())
        })?;
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
            Number::SrcPort => Ok(self.codes(Code::SrcPort)?.iter().copied().map(i64::from).collect()),
            Number::DstPort => Ok(self.codes(Code::DstPort)?.iter().copied().map(i64::from).collect()),
        })?;
        Ok(made)
    }

    /// Of each record, whether it is the first one of its flow.
    pub fn opens(&self) -> Result<&[bool], ChunkError> {
        let made = once(&self.opens, || {
            let opens: Vec<bool> = self.chunk.kinds()?.iter().map(|kind| kind.opens).collect();
            let kinds = self.codes(Code::Kind)?;
            let starts = &self.runs()?.starts;
            let both = kinds.iter().zip(starts);
            Ok(both.map(|(kind, starts)| opens[*kind as usize] & starts).collect())
        })?;
        Ok(made)
    }

    fn flows(&self, column: ColumnId) -> Result<Vec<i64>, ChunkError> {
        self.chunk.values(column, self.number, self.shape.flows)
    }

    fn records(&self, column: ColumnId) -> Result<Vec<i64>, ChunkError> {
        self.chunk.values(column, self.number, self.shape.rows)
    }

    fn runs(&self) -> Result<&Runs, ChunkError> {
        once(&self.runs, || {
            let table: Vec<bool> = self.chunk.states()?.iter().map(|state| state.starts).collect();
            let states = below(&self.records(ColumnId::State)?, table.len())?;
            let starts: Vec<bool> = states.iter().map(|state| table[*state as usize]).collect();
            let flows = starts.iter().filter(|starts| **starts).count();
            if starts.first() != Some(&true) || flows != self.shape.flows {
                return damaged("a page has more or fewer flows than it says");
            }
            let mut flow = u16::MAX;
            let flow_of = starts
                .iter()
                .map(|starts| {
                    flow = flow.wrapping_add(u16::from(*starts));
                    flow
                })
                .collect();
            Ok(Runs { flow_of, starts, states })
        })
    }

    /// A code of each flow.
    fn flow_codes(&self, code: Code) -> Result<Vec<u32>, ChunkError> {
        let mut values = self.flows(code.place().0)?;
        match code {
            Code::Peer => {
                sum_up(&mut values);
                let (first, last) = self.shape.peers;
                let inside = |value: &i64| i64::from(first) <= *value && *value <= i64::from(last);
                if !values.iter().all(inside) {
                    return damaged("a page has an inside end that it does not say");
                }
                below(&values, self.chunk.peer_ends()?.len())
            }
            Code::Remote => below(&values, self.chunk.remote_ends()?.len()),
            Code::Kind => below(&values, self.chunk.kinds()?.len()),
            Code::State => below(&values, self.chunk.states()?.len()),
            Code::SrcPort | Code::DstPort => below(&values, usize::from(u16::MAX) + 1),
        }
    }

    fn record_ids(&self) -> Result<Vec<i64>, ChunkError> {
        let (least, most) = self.chunk.header().zones[Number::RecordId as usize];
        let mut firsts = self.flows(ColumnId::FirstId)?;
        sum_up(&mut firsts);
        let starts = &self.runs()?.starts;
        let later = self.shape.rows - self.shape.flows;
        let later = self.chunk.values(ColumnId::LaterId, self.number, later)?;
        let (mut firsts, mut later) = (firsts.iter(), later.iter());
        let mut before = 0_i64;
        let mut inside = true;
        let ids = starts.iter().map(|starts| {
            // Both have as many values as `starts` has of either kind.
            before = if *starts {
                least.wrapping_add(firsts.next().copied().unwrap_or(0))
            } else {
                before.wrapping_add(later.next().copied().unwrap_or(0))
            };
            inside &= least <= before && before <= most;
            before
        });
        let ids = ids.collect();
        if inside { Ok(ids) } else { damaged("a record id is outside of what the header says") }
    }

    fn window_ends(&self) -> Result<Vec<i64>, ChunkError> {
        let header = self.chunk.header();
        let (least, _) = header.zones[Number::RecordId as usize];
        let times_ms = self.chunk.times_ms()?;
        let ids = self.numbers(Number::RecordId)?;
        let mut ends = self.records(ColumnId::WindowEnd)?;
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
        let Runs { flow_of, starts, .. } = self.runs()?;
        let lengths = self.flows(ColumnId::WindowStart)?;
        let mut before = 0;
        let of = |(end, (flow, starts)): (&i64, (&u16, &bool))| {
            let start =
                if *starts { end.wrapping_sub(lengths[usize::from(*flow)]) } else { before };
            before = *end;
            start
        };
        Ok(ends.iter().zip(flow_of.iter().zip(starts)).map(of).collect())
    }

    fn first_seens(&self) -> Result<Vec<i64>, ChunkError> {
        let window_starts = self.numbers(Number::WindowStart)?;
        let Runs { flow_of, starts, .. } = self.runs()?;
        let mut flows = self.flows(ColumnId::FirstSeen)?;
        let firsts = window_starts.iter().zip(starts).filter(|(_, starts)| **starts);
        for (flow, (window_start, _)) in flows.iter_mut().zip(firsts) {
            *flow = window_start.wrapping_sub(*flow);
        }
        Ok(flow_of.iter().map(|flow| flows[usize::from(*flow)]).collect())
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
        let Runs { flow_of, starts, .. } = self.runs()?;
        let before = self.flows(before)?;
        let mut total = 0_i64;
        let of = |(window, (flow, starts)): (&i64, (&u16, &bool))| {
            let base = if *starts { before[usize::from(*flow)] } else { total };
            total = base.wrapping_add(*window);
            total
        };
        Ok(windows.iter().zip(flow_of.iter().zip(starts)).map(of).collect())
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

/// Numbers as codes that are all below `limit`.
fn below(values: &[i64], limit: usize) -> Result<Vec<u32>, ChunkError> {
    let all = values.iter().fold(0_u64, |all, value| all.max(value.cast_unsigned()));
    if values.is_empty() || usize::try_from(all).is_ok_and(|most| most < limit) {
        Ok(values.iter().map(|value| *value as u32).collect())
    } else {
        damaged("a value is in no dictionary")
    }
}
