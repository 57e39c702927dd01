//! The order of a chunk's records: by inside end, then by flow in the order of first records, then
//! by id.
//!
//! - What one peer did lies on one page or few, so that asking about a peer reads little.
//! - The records of one flow follow each other. What they share is held once a run, and their
//!   windows and totals follow from the record before.

use std::collections::HashMap;

use foldhash::fast::RandomState;

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
    /// The records in their order, and what they are in the dictionaries.
    pub(super) rows: Vec<Row>,
    pub(super) places: Vec<Place>,
    pub(super) pages: Vec<Shape>,
}

/// What a record is in the dictionaries.
#[derive(Clone, Copy)]
pub(super) struct Place {
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

impl Layout {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut peers = Collector::new();
        let mut remotes = Collector::new();
        let mut kinds = Collector::new();
        let mut places: Vec<Place> = rows
            .iter()
            .map(|row| Place {
                peer: peers.code(End::inside(row)),
                remote: remotes.code(End::other(row)),
                kind: kinds.code(Kind::of(row)),
                state: 0,
                starts: false,
            })
            .collect();
        let (peer_ends, peers) = peers.ascending();
        let (remote_ends, remotes) = remotes.by_frequency();
        let (kinds, kind_positions) = kinds.by_frequency();
        for place in &mut places {
            place.peer = peers[place.peer as usize];
            place.remote = remotes[place.remote as usize];
            place.kind = kind_positions[place.kind as usize];
        }
        let order = order(rows, &places);
        let rows: Vec<Row> = order.iter().map(|at| rows[*at as usize]).collect();
        let mut places: Vec<Place> = order.iter().map(|at| places[*at as usize]).collect();
        let pages = cut(&rows, &mut places);
        let mut states = Collector::new();
        for (place, row) in places.iter_mut().zip(&rows) {
            place.state = states.code(State::of(row, place.starts));
        }
        let (states, positions) = states.by_frequency();
        for place in &mut places {
            place.state = positions[place.state as usize];
        }
        Self { peer_ends, remote_ends, kinds, states, rows, places, pages }
    }

    /// The records that start a run.
    pub(super) fn firsts(&self) -> impl Iterator<Item = &Row> {
        let both = self.rows.iter().zip(&self.places);
        both.filter(|(_, place)| place.starts).map(|(row, _)| row)
    }
}

/// Positions in the slice, in the chunk's order.
fn order(rows: &[Row], places: &[Place]) -> Vec<u32> {
    let mut by_id: Vec<u32> = (0..rows.len() as u32).collect();
    if !rows.is_sorted_by_key(|row| row.record_id) {
        by_id.sort_by_key(|at| rows[*at as usize].record_id);
    }
    let mut flows = HashMap::with_capacity_and_hasher(rows.len(), RandomState::default());
    let mut keys: Vec<(u64, u32)> = by_id
        .iter()
        .map(|at| {
            let (row, place) = (&rows[*at as usize], &places[*at as usize]);
            let ports = (row.tuple.peer_port, row.tuple.remote_port);
            let rest = (row.tuple.protocol, row.interface, row.first_seen_ms);
            let next = flows.len() as u32;
            let flow = *flows.entry((place.peer, place.remote, ports, rest)).or_insert(next);
            (u64::from(place.peer) << 32 | u64::from(flow), *at)
        })
        .collect();
    // The sort keeps the order of ids within a flow.
    keys.sort_by_key(|(key, _)| *key);
    keys.into_iter().map(|(_, at)| at).collect()
}

/// Cuts the records into pages, and those into runs.
fn cut(rows: &[Row], places: &mut [Place]) -> Vec<Shape> {
    let both = rows.chunks(PAGE_ROWS).zip(places.chunks_mut(PAGE_ROWS));
    both.map(|(rows, places)| {
        let mut flows = 0;
        for at in 0..rows.len() {
            let goes_on = at > 0 && {
                let (before, place) = (&places[at - 1], &places[at]);
                (before.peer, before.remote) == (place.peer, place.remote)
                    && same_kind(&rows[at - 1], &rows[at])
                    && continues(&rows[at - 1], &rows[at])
            };
            places[at].starts = !goes_on;
            flows += usize::from(!goes_on);
        }
        let peers = (places[0].peer, places[places.len() - 1].peer);
        Shape { rows: rows.len(), flows, peers }
    })
    .collect()
}

/// Whether a record has what a run shares, besides its ends. One that opens its flow starts a run,
/// so the rest of a run opens nothing.
fn same_kind(before: &Row, row: &Row) -> bool {
    let shared = |row: &Row| Kind { opens: false, ..Kind::of(row) };
    !row.opens() && shared(before) == shared(row)
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
