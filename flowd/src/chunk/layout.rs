//! The order of a chunk's records: by inside end, then by flow in the order of first records, then
//! by id.
//!
//! - What one peer did lies on one page or few, so that asking about a peer reads little.
//! - The records of one flow follow each other. What they share is held once a run, and their
//!   windows and totals follow from the record before.

use std::collections::HashMap;

use super::{
    PAGE_ROWS, Row,
    dictionary::Collector,
    entry::{End, Kind, State},
};

/// How the records of a chunk lie.
pub(super) struct Layout {
    pub(super) peer_ends: Vec<End>,
    pub(super) remote_ends: Vec<End>,
    pub(super) kinds: Vec<Kind>,
    pub(super) states: Vec<State>,
    pub(super) places: Vec<Place>,
    pub(super) pages: Vec<Shape>,
}

/// Where a record lies, and its numbers in the dictionaries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its position in the slice.
    pub(super) row: u32,
    pub(super) peer: u32,
    pub(super) remote: u32,
    pub(super) kind: u32,
    pub(super) state: u32,
    pub(super) starts: bool,
}

/// What is on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    /// Runs, which start anew on each page.
    pub(super) flows: usize,
    /// The first and the last inside end.
    pub(super) peers: (u32, u32),
}

/// The numbers of one record before the order is known.
struct Codes {
    peer: u32,
    remote: u32,
    kind: u32,
}

impl Layout {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut peers = Collector::new();
        let mut remotes = Collector::new();
        let mut kinds = Collector::new();
        let mut codes: Vec<Codes> = rows
            .iter()
            .map(|row| Codes {
                peer: peers.code(End::inside(row)),
                remote: remotes.code(End::other(row)),
                kind: kinds.code(Kind::of(row)),
            })
            .collect();
        let (peer_ends, peers) = peers.ascending();
        let (remote_ends, remotes) = remotes.by_frequency();
        let (kinds, kind_positions) = kinds.by_frequency();
        for code in &mut codes {
            code.peer = peers[code.peer as usize];
            code.remote = remotes[code.remote as usize];
            code.kind = kind_positions[code.kind as usize];
        }
        let order = order(rows, &codes);
        let (mut places, pages) = places(rows, &codes, &order);
        let mut states = Collector::new();
        for place in &mut places {
            place.state = states.code(State::of(&rows[place.row as usize], place.starts));
        }
        let (states, positions) = states.by_frequency();
        for place in &mut places {
            place.state = positions[place.state as usize];
        }
        Self { peer_ends, remote_ends, kinds, states, places, pages }
    }
}

/// Positions in the slice, in the chunk's order.
fn order(rows: &[Row], codes: &[Codes]) -> Vec<u32> {
    let mut by_id: Vec<u32> = (0..rows.len() as u32).collect();
    if !rows.is_sorted_by_key(|row| row.record_id) {
        by_id.sort_by_key(|row| rows[*row as usize].record_id);
    }
    let mut flows = HashMap::with_capacity(rows.len());
    let mut keys: Vec<(u64, u32)> = by_id
        .iter()
        .map(|at| {
            let (row, code) = (&rows[*at as usize], &codes[*at as usize]);
            let ports = (row.tuple.peer_port, row.tuple.remote_port);
            let rest = (row.tuple.protocol, row.interface, row.first_seen_ms);
            let next = flows.len() as u32;
            let flow = *flows.entry((code.peer, code.remote, ports, rest)).or_insert(next);
            (u64::from(code.peer) << 32 | u64::from(flow), *at)
        })
        .collect();
    // The sort keeps the order of ids within a flow.
    keys.sort_by_key(|(key, _)| *key);
    keys.into_iter().map(|(_, at)| at).collect()
}

fn places(rows: &[Row], codes: &[Codes], order: &[u32]) -> (Vec<Place>, Vec<Shape>) {
    let mut places: Vec<Place> = Vec::with_capacity(rows.len());
    let mut pages = Vec::with_capacity(rows.len().div_ceil(PAGE_ROWS));
    for page in order.chunks(PAGE_ROWS) {
        let mut before: Option<&Place> = None;
        let mut flows = 0;
        let first = places.len();
        for at in page {
            let Codes { peer, remote, kind } = codes[*at as usize];
            let row = &rows[*at as usize];
            let starts = before.is_none_or(|before| {
                (before.peer, before.remote) != (peer, remote)
                    || kind_changes(&rows[before.row as usize], row)
                    || !continues(&rows[before.row as usize], row)
            });
            flows += usize::from(starts);
            places.push(Place { row: *at, peer, remote, kind, state: 0, starts });
            before = places.last();
        }
        let peers = (places[first].peer, places[places.len() - 1].peer);
        pages.push(Shape { rows: page.len(), flows, peers });
    }
    (places, pages)
}

/// Whether the records differ in what a run shares, besides its ends. A record that opens its flow
/// starts a run, so the rest of the run does not open it.
fn kind_changes(before: &Row, row: &Row) -> bool {
    let shared = |row: &Row| Kind { opens: false, ..Kind::of(row) };
    row.opens() || shared(before) != shared(row)
}

/// Whether a record follows another one of its flow without a hole.
fn continues(before: &Row, row: &Row) -> bool {
    row.first_seen_ms == before.first_seen_ms
        && row.tuple == before.tuple
        && row.window_start_ms == before.window_end_ms
        && earlier(row) == before.counters_total()
}

impl Row {
    /// Packets and bytes since the first packet, in the order of the columns.
    pub(super) fn counters_total(&self) -> [u64; 4] {
        let c = &self.total;
        [c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes]
    }

    /// The same in the window.
    pub(super) fn counters_window(&self) -> [u64; 4] {
        let c = &self.counters;
        [c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes]
    }
}

/// What was counted before the window. Rows that no flow can have wrap around, and come back.
pub(super) fn earlier(row: &Row) -> [u64; 4] {
    let (total, window) = (row.counters_total(), row.counters_window());
    std::array::from_fn(|i| total[i].wrapping_sub(window[i]))
}
