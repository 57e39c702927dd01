//! The order of a chunk's records: by inside end, then by flow in the order of first records, then
//! by id.
//!
//! - What one peer did lies on one page or few, so that asking about a peer reads little.
//! - The records of one flow follow each other. What they share is held once a run, and their
//!   windows and totals follow from the record before.

use std::{collections::HashMap, hash::BuildHasher as _};

use foldhash::fast::RandomState;

use super::{
    Row,
    dictionary::Collector,
    entry::{End, Kind},
};

/// How the records of a chunk lie.
pub(super) struct Layout {
    pub(super) peer_ends: Vec<End>,
    pub(super) remote_ends: Vec<End>,
    pub(super) kinds: Vec<Kind>,
    /// Positions in the slice, in the chunk's order.
    pub(super) order: Vec<u32>,
    /// In the chunk's order.
    pub(super) places: Vec<Place>,
}

/// What a record is in the dictionaries.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) peer: u32,
    pub(super) remote: u32,
    pub(super) kind: u32,
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
        let places = order.iter().map(|at| places[*at as usize]).collect();
        Self { peer_ends, remote_ends, kinds, order, places }
    }
}

/// Positions in the slice, in the chunk's order.
fn order(rows: &[Row], places: &[Place]) -> Vec<u32> {
    let mut by_id: Vec<u32> = (0..rows.len() as u32).collect();
    if !rows.is_sorted_by_key(|row| row.record_id) {
        by_id.sort_by_key(|at| rows[*at as usize].record_id);
    }
    // Two flows with one hash would only lie among each other.
    let hasher = RandomState::default();
    let mut flows = HashMap::with_capacity_and_hasher(rows.len(), RandomState::default());
    let mut keys: Vec<(u64, u32)> = by_id
        .iter()
        .map(|at| {
            let (row, place) = (&rows[*at as usize], &places[*at as usize]);
            let ends = u64::from(place.peer) << 32 | u64::from(place.remote);
            let ports = u64::from(row.tuple.peer_port) << 16 | u64::from(row.tuple.remote_port);
            let rest = u64::from(row.tuple.protocol) << 32 | u64::from(row.interface);
            let next = flows.len() as u32;
            let hash = hasher.hash_one((ends, ports, rest, row.first_seen_ms));
            let flow = *flows.entry(hash).or_insert(next);
            (u64::from(place.peer) << 32 | u64::from(flow), *at)
        })
        .collect();
    // The sort keeps the order of ids within a flow.
    keys.sort_by_key(|(key, _)| *key);
    keys.into_iter().map(|(_, at)| at).collect()
}

/// Puts at each place of a slice what stands at the position that the order says.
pub(super) fn put_in_order<T: Copy>(rows: &mut [T], order: &[u32]) {
    let mut is_done = vec![false; rows.len()];
    for start in 0..rows.len() {
        if is_done[start] {
            continue;
        }
        // Rows go round: each into the place of the one before.
        let (first, mut at) = (rows[start], start);
        loop {
            is_done[at] = true;
            let from = order[at] as usize;
            if from == start {
                rows[at] = first;
                break;
            }
            rows[at] = rows[from];
            at = from;
        }
    }
}

/// Of each record of a page, whether it starts a run.
pub(super) fn starts(rows: &[Row], places: &[Place], out: &mut Vec<bool>) {
    out.clear();
    out.extend((0..rows.len()).map(|at| {
        let Some(before) = at.checked_sub(1) else { return true };
        let ends = |at: usize| (places[at].peer, places[at].remote);
        let goes_on = ends(before) == ends(at)
            && same_kind(&rows[before], &rows[at])
            && continues(&rows[before], &rows[at]);
        !goes_on
    }));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::put_in_order;

    proptest! {
        #[test]
        fn everything_comes_to_its_place(
            order in (0_u32..60).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()),
        ) {
            let values: Vec<u64> = (0..order.len() as u64).map(|value| value * 7).collect();
            let slow: Vec<u64> = order.iter().map(|at| values[*at as usize]).collect();
            let mut quick = values;
            put_in_order(&mut quick, &order);
            prop_assert_eq!(quick, slow);
        }
    }
}
