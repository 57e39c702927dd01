//! Rows to a chunk.

use std::collections::BTreeMap;

use super::{
    ChunkError, ColumnId, MAX_ROWS, Number, Row, VERSION,
    column::Level,
    dictionary::{self, Collector},
    header::{Header, Seal},
    layout::{Layout, Place, earlier},
    members::{Member, Members},
    numbers,
    plane::Packer,
    sums::{Fate, Sum, Sums},
};
use crate::flows::Initiator;

const MINUTE_MS: i64 = 60_000;
/// Sums by minute become sums by so many minutes until there are few enough.
const STEPS_MINUTES: [u32; 5] = [1, 5, 15, 60, 1_440];
/// Sums are kept while there is at most one for so many records.
const RECORDS_PER_SUM: usize = 8;
const RECORDS_PER_STEP: usize = 128;
/// The clock has an entry for at least so many ids, as a power of two.
const LEAST_CLOCK_SHIFT: u32 = 5;

/// A chunk as it is stored: none of its parts is of use without the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// What [`Header::decode`] reads.
    pub header: Vec<u8>,
    /// The columns, by number. Each has the version first; its checksum is in the header.
    pub columns: Vec<(ColumnId, Vec<u8>)>,
}

impl Encoded {
    /// Turns rows, in any order, into a chunk of at most [`MAX_ROWS`].
    pub fn of(rows: &[Row]) -> Result<Self, ChunkError> {
        if rows.len() > MAX_ROWS {
            return Err(ChunkError::TooMany { rows: rows.len() });
        }
        let layout = Layout::of(rows);
        let mut packer = Packer::new();
        let mut parts = Parts::default();
        parts.add(ColumnId::PeerEnds, dictionary::encode(&layout.peer_ends, &mut packer));
        parts.add(ColumnId::RemoteEnds, dictionary::encode(&layout.remote_ends, &mut packer));
        parts.add(ColumnId::Kinds, dictionary::encode(&layout.kinds, &mut packer));
        parts.add(ColumnId::States, dictionary::encode(&layout.states, &mut packer));
        let clock = Clock::of(rows);
        parts.add(ColumnId::Clock, clock.encode(&mut packer));
        parts.add(ColumnId::Members, members(rows, &layout).encode());
        let (totals, step_minutes) = add_sums(rows, &layout, &mut parts, &mut packer);
        add_values(rows, &layout, &clock, &mut parts, &mut packer);
        let opened = rows.iter().filter(|row| row.opens()).map(|row| row.first_seen_ms);
        let header = Header {
            zones: Number::ALL.map(|number| bounds(rows.iter().map(|row| number.of(row)))),
            opened: rows.iter().any(Row::opens).then(|| bounds(opened)),
            totals,
            clock_shift: clock.shift,
            step_minutes,
            seals: parts.seals,
            pages: layout.pages,
        };
        Ok(Self { header: header.encode(), columns: parts.columns })
    }

    /// All bytes.
    pub fn bytes(&self) -> usize {
        self.header.len() + self.columns.iter().map(|(_, blob)| blob.len()).sum::<usize>()
    }
}

#[derive(Default)]
struct Parts {
    columns: Vec<(ColumnId, Vec<u8>)>,
    seals: [Seal; ColumnId::COUNT],
}

impl Parts {
    fn add(&mut self, column: ColumnId, blob: Vec<u8>) {
        self.seals[column.index()] = Seal::of(&blob);
        self.columns.push((column, blob));
    }
}

fn bounds(values: impl Iterator<Item = i64>) -> (i64, i64) {
    let bounds = values.fold(None, |bounds, value| {
        let (least, most) = bounds.unwrap_or((value, value));
        Some((value.min(least), value.max(most)))
    });
    bounds.unwrap_or((0, 0))
}

/// The times at which counters were read, by id: the windows of most records end there or a little
/// before.
struct Clock {
    first_id: i64,
    shift: u32,
    times_ms: Vec<i64>,
}

impl Clock {
    fn of(rows: &[Row]) -> Self {
        let (first_id, last_id) = bounds(rows.iter().map(|row| row.record_id.cast_signed()));
        let span = last_id.wrapping_sub(first_id).cast_unsigned();
        let most = rows.len() as u64 >> LEAST_CLOCK_SHIFT;
        let shift = (LEAST_CLOCK_SHIFT..63).find(|shift| span >> shift <= most).unwrap_or(63);
        let mut clock = Self { first_id, shift, times_ms: Vec::new() };
        if rows.is_empty() {
            return clock;
        }
        let mut latest = vec![None; (span >> shift) as usize + 1];
        for row in rows {
            let slot = &mut latest[clock.slot(row.record_id)];
            *slot = (*slot).max(Some(row.window_end_ms));
        }
        let mut before = 0;
        clock.times_ms = latest
            .into_iter()
            .map(|time_ms| {
                before = time_ms.unwrap_or(before);
                before
            })
            .collect();
        clock
    }

    fn slot(&self, record_id: u64) -> usize {
        (record_id.cast_signed().wrapping_sub(self.first_id).cast_unsigned() >> self.shift) as usize
    }

    fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let steps: Vec<i64> = std::iter::once(0)
            .chain(self.times_ms.iter().copied())
            .zip(&self.times_ms)
            .map(|(before, time_ms)| time_ms.wrapping_sub(before))
            .collect();
        let mut out = vec![VERSION];
        out.extend(numbers::encode(&steps, &[steps.len()], packer));
        out
    }
}

/// The columns that have values for flows and records.
fn add_values(
    rows: &[Row],
    layout: &Layout,
    clock: &Clock,
    parts: &mut Parts,
    packer: &mut Packer,
) {
    for column in ColumnId::ALL.iter().copied().filter(|column| column.level() != Level::Chunk) {
        let mut values = Vec::with_capacity(rows.len());
        let mut pages = Vec::with_capacity(layout.pages.len());
        let mut rest = &layout.places[..];
        for shape in &layout.pages {
            let (page, after) = rest.split_at(shape.rows);
            rest = after;
            let before = values.len();
            add_page(column, rows, page, clock, &mut values);
            pages.push(values.len() - before);
        }
        let mut blob = vec![VERSION];
        blob.extend(numbers::encode(&values, &pages, packer));
        parts.add(column, blob);
    }
}

/// The values of one column on one page.
fn add_page(
    column: ColumnId,
    rows: &[Row],
    page: &[Place],
    clock: &Clock,
    out: &mut Vec<i64>,
) {
    let row = |place: &Place| &rows[place.row as usize];
    let mut starts = |of: &dyn Fn(&Place) -> i64| {
        out.extend(page.iter().filter(|place| place.starts).map(of));
    };
    let id = |place: &Place| row(place).record_id.cast_signed();
    match column {
        ColumnId::Peer => {
            let mut before = 0;
            let firsts = page.iter().filter(|place| place.starts);
            out.extend(firsts.map(|place| i64::from(place.peer) - std::mem::replace(&mut before, i64::from(place.peer))));
        }
        ColumnId::FirstId => {
            let mut before = clock.first_id;
            let firsts = page.iter().filter(|place| place.starts);
            out.extend(firsts.map(|place| id(place).wrapping_sub(std::mem::replace(&mut before, id(place)))));
        }
        ColumnId::LaterId => {
            let later = page.windows(2).filter(|pair| !pair[1].starts);
            out.extend(later.map(|pair| id(&pair[1]).wrapping_sub(id(&pair[0]))));
        }
        ColumnId::Remote => starts(&|place| i64::from(place.remote)),
        ColumnId::Kind => starts(&|place| i64::from(place.kind)),
        ColumnId::SrcPort => starts(&|place| Number::SrcPort.of(row(place))),
        ColumnId::DstPort => starts(&|place| Number::DstPort.of(row(place))),
        ColumnId::WindowStart => starts(&|place| {
            let row = row(place);
            row.window_end_ms.wrapping_sub(row.window_start_ms)
        }),
        ColumnId::FirstSeen => starts(&|place| {
            let row = row(place);
            row.window_start_ms.wrapping_sub(row.first_seen_ms)
        }),
        ColumnId::RxPacketsBefore => starts(&|place| earlier(row(place))[0].cast_signed()),
        ColumnId::RxBytesBefore => starts(&|place| earlier(row(place))[1].cast_signed()),
        ColumnId::TxPacketsBefore => starts(&|place| earlier(row(place))[2].cast_signed()),
        ColumnId::TxBytesBefore => starts(&|place| earlier(row(place))[3].cast_signed()),
        ColumnId::State => out.extend(page.iter().map(|place| i64::from(place.state))),
        ColumnId::WindowEnd => out.extend(page.iter().map(|place| {
            let row = row(place);
            clock.times_ms[clock.slot(row.record_id)].wrapping_sub(row.window_end_ms)
        })),
        ColumnId::LastSeen => out.extend(page.iter().map(|place| {
            let row = row(place);
            row.window_end_ms.wrapping_sub(row.last_seen_ms)
        })),
        ColumnId::RxPackets => each(page, rows, 0, out),
        ColumnId::RxBytes => each(page, rows, 1, out),
        ColumnId::TxPackets => each(page, rows, 2, out),
        ColumnId::TxBytes => each(page, rows, 3, out),
        ColumnId::PeerEnds
        | ColumnId::RemoteEnds
        | ColumnId::Kinds
        | ColumnId::States
        | ColumnId::Clock
        | ColumnId::Members
        | ColumnId::MinuteSums
        | ColumnId::PeerSums
        | ColumnId::RemoteSums
        | ColumnId::PortSums => {}
    }
}

fn each(page: &[Place], rows: &[Row], counter: usize, out: &mut Vec<i64>) {
    let window = |place: &Place| rows[place.row as usize].counters_window()[counter];
    out.extend(page.iter().map(|place| window(place).cast_signed()));
}

fn members(rows: &[Row], layout: &Layout) -> Members {
    let ends = || layout.peer_ends.iter().chain(&layout.remote_ends);
    let mut keys: Vec<Member> = ends().map(|end| Member::Address(end.addr)).collect();
    keys.extend(ends().map(|end| Member::Peer(end.peer)));
    let older = layout.places.iter().filter(|place| place.starts);
    let older = older.map(|place| &rows[place.row as usize]).filter(|row| !row.opens());
    keys.extend(older.map(|row| Member::Older(row.first_seen_ms)));
    keys.sort_unstable();
    keys.dedup();
    Members::of(&keys)
}

/// Adds up rows under numbers that start from zero.
struct Adding(Vec<[Sum; Fate::COUNT]>);

impl Adding {
    fn add(&mut self, code: u32, fate: Fate, sum: &Sum) {
        let code = code as usize;
        if self.0.len() <= code {
            self.0.resize(code + 1, [Sum::default(); Fate::COUNT]);
        }
        self.0[code][fate.index()].absorb(sum);
    }

    /// The sums under the keys that the numbers stand for.
    fn sums(self, key: impl Fn(usize) -> i64) -> Sums {
        let mut sums = BTreeMap::new();
        for (code, by_fate) in self.0.iter().enumerate() {
            for fate in Fate::all() {
                let sum = by_fate[fate.index()];
                if sum.records > 0 {
                    sums.insert((key(code), fate), sum);
                }
            }
        }
        Sums(sums)
    }
}

fn add_sums(
    rows: &[Row],
    layout: &Layout,
    parts: &mut Parts,
    packer: &mut Packer,
) -> (BTreeMap<Fate, Sum>, u32) {
    let mut totals = BTreeMap::new();
    let [mut peers, mut remotes, mut ports, mut minutes] = [(); 4].map(|()| Adding(Vec::new()));
    let (mut port_codes, mut minute_codes) = (Collector::new(), Collector::new());
    for place in &layout.places {
        let row = &rows[place.row as usize];
        let fate = Fate {
            verdict: row.verdict,
            overflow: row.overflow,
            inward: row.initiator == Initiator::Remote,
        };
        let flows = u64::from(row.opens() && !row.overflow);
        let sum = Sum { records: 1, flows, counters: row.counters };
        totals.entry(fate).or_insert_with(Sum::default).absorb(&sum);
        peers.add(place.peer, fate, &sum);
        remotes.add(place.remote, fate, &sum);
        let port = i64::from(row.tuple.protocol) << 16 | Number::DstPort.of(row);
        ports.add(port_codes.code(port), fate, &sum);
        minutes.add(minute_codes.code(row.window_end_ms.div_euclid(MINUTE_MS)), fate, &sum);
    }
    let (port_keys, minute_keys) = (port_codes.by_code(), minute_codes.by_code());
    let few = rows.len() / RECORDS_PER_SUM;
    for (column, sums) in [
        (ColumnId::PeerSums, peers.sums(|code| code as i64)),
        (ColumnId::RemoteSums, remotes.sums(|code| code as i64)),
        (ColumnId::PortSums, ports.sums(|code| port_keys[code])),
    ] {
        if sums.0.len() <= few {
            parts.add(column, sums.encode(packer));
        }
    }
    let minutes = minutes.sums(|code| minute_keys[code]);
    let (steps, step_minutes) = coarser(&minutes, rows.len() / RECORDS_PER_STEP);
    parts.add(ColumnId::MinuteSums, steps.encode(packer));
    (totals, step_minutes)
}

/// Sums by as few minutes as leave few sums.
fn coarser(minutes: &Sums, few: usize) -> (Sums, u32) {
    let mut coarsest = (Sums::default(), 1);
    for step in STEPS_MINUTES {
        let mut sums = Sums::default();
        for ((minute, fate), sum) in &minutes.0 {
            sums.add(minute.div_euclid(i64::from(step)), *fate, sum);
        }
        coarsest = (sums, step);
        if coarsest.0.0.len() <= few {
            break;
        }
    }
    coarsest
}
