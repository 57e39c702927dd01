//! Rows to a chunk.

use std::{array, collections::BTreeMap};

use super::{
    ChunkError, ColumnId, MAX_ROWS, Number, PAGE_ROWS, Row, VERSION,
    column::Level,
    dictionary::{self, Collector},
    header::{Header, Seal},
    layout::{Layout, Place, Shape, earlier},
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
        parts.add(ColumnId::Members, members(&layout).encode());
        let (totals, step_minutes) = add_sums(&layout, &mut parts, &mut packer);
        let zones = add_values(&layout, &clock, &mut parts, &mut packer);
        let opened = rows.iter().filter(|row| row.opens()).map(|row| row.first_seen_ms);
        let header = Header {
            zones,
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
        numbers::encode(&steps, &[steps.len()], packer, &mut out);
        out
    }
}

/// The columns that have values for flows and records.
fn add_values(
    layout: &Layout,
    clock: &Clock,
    parts: &mut Parts,
    packer: &mut Packer,
) -> [(i64, i64); Number::ALL.len()] {
    let mut values = Values::of(layout.rows.len());
    for (rows, places) in layout.rows.chunks(PAGE_ROWS).zip(layout.places.chunks(PAGE_ROWS)) {
        values.add_page(rows, places, clock);
    }
    for column in ColumnId::ALL.iter().copied() {
        let lengths = |of: fn(&Shape) -> usize| layout.pages.iter().map(of).collect::<Vec<_>>();
        let pages = match column.level() {
            Level::Chunk => continue,
            Level::Flow => lengths(|page| page.flows),
            Level::Later => lengths(|page| page.rows - page.flows),
            Level::Record => lengths(|page| page.rows),
        };
        let mut blob = vec![VERSION];
        numbers::encode(&values.columns[column.index()], &pages, packer, &mut blob);
        parts.add(column, blob);
    }
    let Values { least, most, .. } = values;
    array::from_fn(
        |number| if layout.rows.is_empty() { (0, 0) } else { (least[number], most[number]) },
    )
}

/// The numbers of all columns, and between what those of the records lie.
struct Values {
    columns: [Vec<i64>; ColumnId::COUNT],
    least: [i64; Number::ALL.len()],
    most: [i64; Number::ALL.len()],
}

impl Values {
    fn of(rows: usize) -> Self {
        let room = |column: usize| match ColumnId::ALL[column].level() {
            Level::Chunk => 0,
            Level::Flow | Level::Later | Level::Record => rows,
        };
        let columns = array::from_fn(|column| Vec::with_capacity(room(column)));
        Self { columns, least: [i64::MAX; _], most: [i64::MIN; _] }
    }

    fn push(&mut self, column: ColumnId, value: i64) {
        self.columns[column.index()].push(value);
    }

    fn add_page(&mut self, rows: &[Row], places: &[Place], clock: &Clock) {
        let mut flow_before = (0, clock.first_id);
        let mut id_before = 0;
        for (row, place) in rows.iter().zip(places) {
            let id = row.record_id.cast_signed();
            if place.starts {
                self.add_flow(row, place, &mut flow_before);
            } else {
                self.push(ColumnId::LaterId, id.wrapping_sub(id_before));
            }
            id_before = id;
            self.add_record(row, place, clock);
            for (number, value) in Number::all_of(row).into_iter().enumerate() {
                self.least[number] = self.least[number].min(value);
                self.most[number] = self.most[number].max(value);
            }
        }
    }

    /// What a run shares. Ends and ids are differences from the run before.
    fn add_flow(&mut self, row: &Row, place: &Place, before: &mut (i64, i64)) {
        let (peer, id) = (i64::from(place.peer), row.record_id.cast_signed());
        self.push(ColumnId::Peer, peer - before.0);
        self.push(ColumnId::FirstId, id.wrapping_sub(before.1));
        *before = (peer, id);
        self.push(ColumnId::Remote, i64::from(place.remote));
        self.push(ColumnId::Kind, i64::from(place.kind));
        self.push(ColumnId::SrcPort, Number::SrcPort.of(row));
        self.push(ColumnId::DstPort, Number::DstPort.of(row));
        self.push(ColumnId::WindowStart, row.window_end_ms.wrapping_sub(row.window_start_ms));
        self.push(ColumnId::FirstSeen, row.window_start_ms.wrapping_sub(row.first_seen_ms));
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = earlier(row).map(u64::cast_signed);
        self.push(ColumnId::RxPacketsBefore, rx_packets);
        self.push(ColumnId::RxBytesBefore, rx_bytes);
        self.push(ColumnId::TxPacketsBefore, tx_packets);
        self.push(ColumnId::TxBytesBefore, tx_bytes);
    }

    fn add_record(&mut self, row: &Row, place: &Place, clock: &Clock) {
        let read_ms = clock.times_ms[clock.slot(row.record_id)];
        self.push(ColumnId::State, i64::from(place.state));
        self.push(ColumnId::WindowEnd, read_ms.wrapping_sub(row.window_end_ms));
        self.push(ColumnId::LastSeen, row.window_end_ms.wrapping_sub(row.last_seen_ms));
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] =
            row.counters_window().map(u64::cast_signed);
        self.push(ColumnId::RxPackets, rx_packets);
        self.push(ColumnId::RxBytes, rx_bytes);
        self.push(ColumnId::TxPackets, tx_packets);
        self.push(ColumnId::TxBytes, tx_bytes);
    }
}

fn members(layout: &Layout) -> Members {
    let ends = || layout.peer_ends.iter().chain(&layout.remote_ends);
    let mut keys: Vec<Member> = ends().map(|end| Member::Address(end.addr)).collect();
    keys.extend(ends().map(|end| Member::Peer(end.peer)));
    let older = layout.firsts().filter(|row| !row.opens());
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

fn add_sums(layout: &Layout, parts: &mut Parts, packer: &mut Packer) -> (BTreeMap<Fate, Sum>, u32) {
    let [mut all, mut peers, mut remotes] = [(); 3].map(|()| Adding(Vec::new()));
    let [mut ports, mut minutes] = [(); 2].map(|()| Adding(Vec::new()));
    let (mut port_codes, mut minute_codes) = (Collector::new(), Collector::new());
    for (row, place) in layout.rows.iter().zip(&layout.places) {
        let fate = Fate {
            verdict: row.verdict,
            overflow: row.overflow,
            inward: row.initiator == Initiator::Remote,
        };
        let flows = u64::from(row.opens() && !row.overflow);
        let sum = Sum { records: 1, flows, counters: row.counters };
        all.add(0, fate, &sum);
        peers.add(place.peer, fate, &sum);
        remotes.add(place.remote, fate, &sum);
        let port = i64::from(row.tuple.protocol) << 16 | Number::DstPort.of(row);
        ports.add(port_codes.code(port), fate, &sum);
        minutes.add(minute_codes.code(row.window_end_ms.div_euclid(MINUTE_MS)), fate, &sum);
    }
    let rows = layout.rows.len();
    let totals = all.sums(|_| 0).0.into_iter().map(|((_, fate), sum)| (fate, sum)).collect();
    let (port_keys, minute_keys) = (port_codes.by_code(), minute_codes.by_code());
    let few = rows / RECORDS_PER_SUM;
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
    let (steps, step_minutes) = coarser(&minutes, rows / RECORDS_PER_STEP);
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
