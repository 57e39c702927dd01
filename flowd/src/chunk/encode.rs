//! Rows to a chunk.

use std::{array, collections::BTreeMap};

use super::{
    ChunkError, ColumnId, MAX_ROWS, Number, PAGE_ROWS, Row, VERSION,
    column::Level,
    dictionary::{self, Collector},
    entry::State,
    header::{Header, Seal},
    layout::{self, Layout, Place, Shape, earlier},
    members::{Member, Members},
    numbers,
    plane::Packer,
    sums::{Fate, Sum, Sums},
};
use crate::flows::Initiator;

const MINUTE_MS: i64 = 60_000;
/// Sums by minute become sums by so many minutes until there are few enough.
const STEPS_MINUTES: [u32; 5] = [1, 5, 15, 60, 1_440];
/// Sums are kept while there is at most one key for so many records.
const RECORDS_PER_SUM: usize = 8;
/// So many are kept however few records there are.
const FEW_SUMS: usize = 4;
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
        Self::ordering(&mut rows.to_vec())
    }

    /// The same, and puts the rows into the chunk's order.
    pub fn ordering(rows: &mut [Row]) -> Result<Self, ChunkError> {
        if rows.len() > MAX_ROWS {
            return Err(ChunkError::TooMany { rows: rows.len() });
        }
        let layout = Layout::of(rows);
        let clock = Clock::of(rows);
        layout::put_in_order(rows, &layout.order);
        let mut values = Values::of(rows.len());
        let mut adding = AllSums::of(rows.len());
        let mut starts = Vec::new();
        for (page, places) in rows.chunks(PAGE_ROWS).zip(layout.places.chunks(PAGE_ROWS)) {
            layout::starts(page, places, &mut starts);
            values.add_page(page, places, &starts, &clock);
            adding.add_page(page, places);
        }
        let mut packer = Packer::new();
        let mut parts = Parts::default();
        let states = values.finish_states();
        parts.add(ColumnId::PeerEnds, dictionary::encode(&layout.peer_ends, &mut packer));
        parts.add(ColumnId::RemoteEnds, dictionary::encode(&layout.remote_ends, &mut packer));
        parts.add(ColumnId::Kinds, dictionary::encode(&layout.kinds, &mut packer));
        parts.add(ColumnId::States, dictionary::encode(&states, &mut packer));
        parts.add(ColumnId::Clock, clock.encode(&mut packer));
        parts.add(ColumnId::Members, members(&layout, &values.older).encode());
        let (totals, step_minutes) = adding.finish(rows.len(), &mut parts, &mut packer);
        values.encode(&mut parts, &mut packer);
        let header = Header {
            zones: values.zones(),
            opened: values.opened,
            totals,
            clock_shift: clock.shift,
            step_minutes,
            seals: parts.seals,
            pages: values.pages,
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

/// The numbers of all columns, and what the header says of them.
struct Values {
    columns: [Vec<i64>; ColumnId::COUNT],
    states: Collector<State>,
    pages: Vec<Shape>,
    least: [i64; Number::ALL.len()],
    most: [i64; Number::ALL.len()],
    opened: Option<(i64, i64)>,
    /// First-seen times of flows that were open before.
    older: Vec<Member>,
}

impl Values {
    fn of(rows: usize) -> Self {
        let room = |column: usize| match ColumnId::ALL[column].level() {
            Level::Chunk => 0,
            Level::Flow | Level::Later | Level::Record => rows,
        };
        Self {
            columns: array::from_fn(|column| Vec::with_capacity(room(column))),
            states: Collector::new(),
            pages: Vec::new(),
            least: [i64::MAX; _],
            most: [i64::MIN; _],
            opened: None,
            older: Vec::new(),
        }
    }

    fn zones(&self) -> [(i64, i64); Number::ALL.len()] {
        let zone = |number: usize| (self.least[number], self.most[number]);
        array::from_fn(|number| if self.pages.is_empty() { (0, 0) } else { zone(number) })
    }

    /// Numbers the states by frequency.
    fn finish_states(&mut self) -> Vec<State> {
        let (states, positions) =
            std::mem::replace(&mut self.states, Collector::new()).by_frequency();
        for state in &mut self.columns[ColumnId::State.index()] {
            *state = i64::from(positions[*state as usize]);
        }
        states
    }

    fn encode(&self, parts: &mut Parts, packer: &mut Packer) {
        for column in ColumnId::ALL.iter().copied() {
            let lengths = |of: fn(&Shape) -> usize| self.pages.iter().map(of).collect::<Vec<_>>();
            let pages = match column.level() {
                Level::Chunk => continue,
                Level::Flow => lengths(|page| page.flows),
                Level::Later => lengths(|page| page.rows - page.flows),
                Level::Record => lengths(|page| page.rows),
            };
            let mut blob = vec![VERSION];
            numbers::encode(&self.columns[column.index()], &pages, packer, &mut blob);
            parts.add(column, blob);
        }
    }

    fn push(&mut self, column: ColumnId, value: i64) {
        self.columns[column.index()].push(value);
    }

    fn add_page(&mut self, rows: &[Row], places: &[Place], starts: &[bool], clock: &Clock) {
        let mut flow_before = (0, clock.first_id);
        let mut id_before = 0;
        for ((row, place), starts) in rows.iter().zip(places).zip(starts) {
            let id = row.record_id.cast_signed();
            if *starts {
                self.add_flow(row, place, &mut flow_before);
            } else {
                self.push(ColumnId::LaterId, id.wrapping_sub(id_before));
            }
            id_before = id;
            self.add_record(row, *starts, clock);
            for (number, value) in Number::all_of(row).into_iter().enumerate() {
                self.least[number] = self.least[number].min(value);
                self.most[number] = self.most[number].max(value);
            }
        }
        let flows = starts.iter().filter(|starts| **starts).count();
        let peers = (places[0].peer, places[places.len() - 1].peer);
        self.pages.push(Shape { rows: rows.len(), flows, peers });
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
        let at = row.first_seen_ms;
        if row.opens() {
            let (least, most) = self.opened.unwrap_or((at, at));
            self.opened = Some((least.min(at), most.max(at)));
        } else {
            self.older.push(Member::Older(at));
        }
    }

    fn add_record(&mut self, row: &Row, starts: bool, clock: &Clock) {
        let read_ms = clock.times_ms[clock.slot(row.record_id)];
        let state = self.states.code(State::of(row, starts));
        self.push(ColumnId::State, i64::from(state));
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

fn members(layout: &Layout, older: &[Member]) -> Members {
    let ends = || layout.peer_ends.iter().chain(&layout.remote_ends);
    let mut keys = older.to_vec();
    keys.extend(ends().map(|end| Member::Address(end.addr)));
    keys.extend(ends().map(|end| Member::Peer(end.peer)));
    keys.sort_unstable();
    keys.dedup();
    Members::of(&keys)
}

/// Adds up rows under numbers that start from zero, until there are too many.
struct Adding {
    sums: Vec<[Sum; Fate::COUNT]>,
    most: usize,
    is_full: bool,
}

impl Adding {
    fn up_to(most: usize) -> Self {
        Self { sums: Vec::new(), most, is_full: false }
    }

    fn add(&mut self, code: u32, fate: Fate, sum: &Sum) {
        let code = code as usize;
        if self.is_full {
            return;
        }
        if self.sums.len() <= code {
            if code >= self.most {
                *self = Self { is_full: true, ..Self::up_to(0) };
                return;
            }
            self.sums.resize(code + 1, [Sum::default(); Fate::COUNT]);
        }
        self.sums[code][fate.index()].absorb(sum);
    }

    /// The sums under the keys that the numbers stand for.
    fn sums(self, key: impl Fn(usize) -> i64) -> Sums {
        let by_code = self.sums.iter().enumerate();
        by_code
            .flat_map(|(code, by_fate)| {
                let key = key(code);
                Fate::all().map(move |fate| ((key, fate), by_fate[fate.index()]))
            })
            .filter(|(_, sum)| sum.records > 0)
            .collect()
    }
}

/// All sums of a chunk.
struct AllSums {
    all: Adding,
    peers: Adding,
    remotes: Adding,
    ports: Adding,
    minutes: Adding,
    /// `protocol << 16 | port`.
    port_codes: Collector<i64>,
    minute_codes: Collector<i64>,
}

impl AllSums {
    fn of(rows: usize) -> Self {
        let few = (rows / RECORDS_PER_SUM).max(FEW_SUMS);
        let [peers, remotes, ports] = array::from_fn(|_| Adding::up_to(few));
        Self {
            all: Adding::up_to(1),
            peers,
            remotes,
            ports,
            minutes: Adding::up_to(rows),
            port_codes: Collector::new(),
            minute_codes: Collector::new(),
        }
    }

    fn add_page(&mut self, rows: &[Row], places: &[Place]) {
        for (row, place) in rows.iter().zip(places) {
            let fate = Fate {
                verdict: row.verdict,
                overflow: row.overflow,
                inward: row.initiator == Initiator::Remote,
            };
            let flows = u64::from(row.opens() && !row.overflow);
            let sum = Sum { records: 1, flows, counters: row.counters };
            self.all.add(0, fate, &sum);
            self.peers.add(place.peer, fate, &sum);
            self.remotes.add(place.remote, fate, &sum);
            let port = i64::from(row.tuple.protocol) << 16 | Number::DstPort.of(row);
            self.ports.add(self.port_codes.code(port), fate, &sum);
            let minute = row.window_end_ms.div_euclid(MINUTE_MS);
            self.minutes.add(self.minute_codes.code(minute), fate, &sum);
        }
    }

    /// Gives the totals, and the minutes of a step.
    fn finish(
        self,
        rows: usize,
        parts: &mut Parts,
        packer: &mut Packer,
    ) -> (BTreeMap<Fate, Sum>, u32) {
        let (ports, minutes) = (self.port_codes.by_code(), self.minute_codes.by_code());
        let key: fn(usize) -> i64 = |code| code as i64;
        let port = |code: usize| ports[code];
        for (column, adding, key) in [
            (ColumnId::PeerSums, self.peers, &key as &dyn Fn(usize) -> i64),
            (ColumnId::RemoteSums, self.remotes, &key),
            (ColumnId::PortSums, self.ports, &port),
        ] {
            if !adding.is_full {
                parts.add(column, adding.sums(key).encode(packer));
            }
        }
        let minutes = self.minutes.sums(|code| minutes[code]);
        let (steps, step_minutes) = coarser(&minutes, rows / RECORDS_PER_STEP);
        parts.add(ColumnId::MinuteSums, steps.encode(packer));
        let totals = self.all.sums(|_| 0).0.into_iter().map(|((_, fate), sum)| (fate, sum));
        (totals.collect(), step_minutes)
    }
}

/// Sums by as few minutes as leave few sums.
fn coarser(minutes: &Sums, few: usize) -> (Sums, u32) {
    let mut coarsest = (Sums::default(), 1);
    for step in STEPS_MINUTES {
        let coarser = |((minute, fate), sum): &((i64, Fate), Sum)| {
            ((minute.div_euclid(i64::from(step)), *fate), *sum)
        };
        let sums: Sums = minutes.0.iter().map(coarser).collect();
        coarsest = (sums, step);
        if coarsest.0.0.len() <= few {
            break;
        }
    }
    coarsest
}
