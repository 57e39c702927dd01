//! A walk over all records of a segment, rows and chunks, by ascending id: what they say together.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    chunks::{self, damaged},
    digests, row,
    total::Sum,
};
use crate::{
    chunk::{ColumnId, Row},
    flows::{Counters, Tuple},
};

/// Names a flow in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    interface: u32,
    tuple: Tuple,
    first_seen_ms: i64,
    overflow: bool,
}

/// The last record of a flow so far.
#[derive(Clone, Copy, Debug)]
struct Last {
    record_id: u64,
    window_end_ms: i64,
    total: Counters,
}

/// A record that goes on from one that is in no segment that the walk has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoesOn {
    pub(super) record_id: u64,
    flow: FlowKey,
    from_ms: i64,
    before: Counters,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) records: u64,
    /// First and last.
    pub(super) ids: Option<(u64, u64)>,
    /// Numbers that nothing has.
    pub(super) missing: u64,
    /// Records whose number comes a second time.
    pub(super) doubled: Vec<u64>,
    /// Records that do not go on where the record before of their flow ends.
    pub(super) off: Vec<u64>,
    /// What has to be in the segment before.
    pub(super) going_on: Vec<GoesOn>,
    /// Flows whose last record here does not end them.
    open: HashMap<FlowKey, Last>,
    /// Flows that have ended, by their hashes: one that is taken for another is not looked at.
    ended: HashSet<u64>,
    hasher: RandomState,
    sums: BTreeMap<(u32, u32, u8), Sum>,
}

impl Walk {
    pub(super) fn over(conn: &Connection, version: usize) -> rusqlite::Result<Self> {
        let mut walk = Self::default();
        if version >= chunks::SINCE_VERSION {
            for stored in chunks::between(conn, 0, i64::MAX.cast_unsigned())? {
                stored.need(conn, ColumnId::ALL.iter().copied().collect())?;
                stored.chunk.check().map_err(damaged)?;
                let rows = stored.chunk.all_rows().map_err(damaged)?;
                rows.iter().for_each(|row| walk.visit(row));
            }
            digests::check(conn, version)?;
        }
        let sql = format!("SELECT {} FROM record ORDER BY record_id", row::columns(version));
        let mut query = conn.prepare(&sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            walk.visit(&row::numbers(row)?.0);
        }
        Ok(walk)
    }

    fn visit(&mut self, row: &Row) {
        self.number(row.record_id);
        let peer = row.peer.map_or(0, std::num::NonZeroU32::get);
        let key = (row.interface, peer, row.verdict.number());
        let sum = self.sums.entry(key).or_default();
        sum.records += 1;
        sum.flows += u64::from(!row.overflow && row.opens());
        sum.counters += row.counters;

        let flow = FlowKey {
            interface: row.interface,
            tuple: row.tuple,
            first_seen_ms: row.first_seen_ms,
            overflow: row.overflow,
        };
        let before = earlier(row);
        match self.open.get(&flow) {
            Some(last) if last.window_end_ms == row.window_start_ms && last.total == before => {}
            Some(_) => self.off.push(row.record_id),
            None if !row.opens() && !self.ended.contains(&self.hasher.hash_one(flow)) => {
                let (record_id, from_ms) = (row.record_id, row.window_start_ms);
                self.going_on.push(GoesOn { record_id, flow, from_ms, before });
            }
            None => {}
        }
        if row.end_reason.is_some() {
            self.open.remove(&flow);
            self.ended.insert(self.hasher.hash_one(flow));
        } else {
            let Row { record_id, window_end_ms, total, .. } = *row;
            self.open.insert(flow, Last { record_id, window_end_ms, total });
        }
    }

    fn number(&mut self, id: u64) {
        self.records += 1;
        match &mut self.ids {
            None => self.ids = Some((id, id)),
            Some((_, last)) if id > *last => {
                self.missing += id - *last - 1;
                *last = id;
            }
            Some(_) => self.doubled.push(id),
        }
    }

    /// The last records of open flows that the ledger does not have so, ascending.
    pub(super) fn not_in_ledger(&self, conn: &Connection) -> rusqlite::Result<Vec<u64>> {
        let mut query = conn.prepare(
            "SELECT 1 FROM open_flow WHERE interface_id = ? AND first_seen = ? AND protocol = ? \
             AND peer_addr = ? AND remote_addr = ? AND peer_port = ? AND remote_port = ? \
             AND rx_packets_total = ? AND rx_bytes_total = ? AND tx_packets_total = ? \
             AND tx_bytes_total = ?",
        )?;
        let mut wrong = Vec::new();
        for (flow, last) in &self.open {
            let (t, c) = (&flow.tuple, counts(&last.total));
            let found = query.exists(params![
                flow.interface,
                flow.first_seen_ms,
                t.protocol,
                t.peer_addr.octets(),
                t.remote_addr.octets(),
                t.peer_port,
                t.remote_port,
                c[0],
                c[1],
                c[2],
                c[3],
            ])?;
            if !found {
                wrong.push(last.record_id);
            }
        }
        wrong.sort_unstable();
        Ok(wrong)
    }

    /// The peers whose sums in the segment are not those of its records.
    pub(super) fn wrong_sums(&self, conn: &Connection) -> rusqlite::Result<Vec<u32>> {
        let mut query = conn.prepare(
            "SELECT interface_id, peer_id, verdict, records, flows, rx_packets, rx_bytes, \
             tx_packets, tx_bytes FROM total",
        )?;
        let mut left = self.sums.clone();
        let mut wrong = Vec::new();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let key: (u32, u32, u8) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let counters = Counters {
                rx_packets: count(5)?,
                rx_bytes: count(6)?,
                tx_packets: count(7)?,
                tx_bytes: count(8)?,
            };
            let kept = Sum { records: count(3)?, flows: count(4)?, counters };
            if left.remove(&key) != Some(kept) {
                wrong.push(key.1);
            }
        }
        wrong.extend(left.keys().map(|(_, peer, _)| *peer));
        wrong.sort_unstable();
        wrong.dedup();
        Ok(wrong)
    }
}

/// Those that do not go on from what the ledger of `older`, the segment before, has. They are of
/// the segment in `conn`.
pub(super) fn not_handed_on(
    going_on: &[GoesOn],
    conn: &Connection,
    older: &Connection,
) -> rusqlite::Result<Vec<u64>> {
    let mut name = conn.prepare("SELECT name FROM interface WHERE interface_id = ?")?;
    let mut query = older.prepare(
        "SELECT 1 FROM open_flow JOIN interface USING (interface_id) WHERE name = ? \
         AND first_seen = ? AND protocol = ? AND peer_addr = ? AND remote_addr = ? \
         AND peer_port = ? AND remote_port = ? AND window_end = ? AND rx_packets_total = ? \
         AND rx_bytes_total = ? AND tx_packets_total = ? AND tx_bytes_total = ?",
    )?;
    let mut wrong = Vec::new();
    for GoesOn { record_id, flow, from_ms, before } in going_on {
        let (t, c) = (&flow.tuple, counts(before));
        let interface: Option<String> =
            name.query_row([flow.interface], |row| row.get(0)).optional()?;
        let found = query.exists(params![
            interface,
            flow.first_seen_ms,
            t.protocol,
            t.peer_addr.octets(),
            t.remote_addr.octets(),
            t.peer_port,
            t.remote_port,
            from_ms,
            c[0],
            c[1],
            c[2],
            c[3],
        ])?;
        if !found {
            wrong.push(*record_id);
        }
    }
    Ok(wrong)
}

/// What was counted before the window. Rows that no flow can have wrap around.
fn earlier(row: &Row) -> Counters {
    let (total, window) = (&row.total, &row.counters);
    Counters {
        rx_packets: total.rx_packets.wrapping_sub(window.rx_packets),
        rx_bytes: total.rx_bytes.wrapping_sub(window.rx_bytes),
        tx_packets: total.tx_packets.wrapping_sub(window.tx_packets),
        tx_bytes: total.tx_bytes.wrapping_sub(window.tx_bytes),
    }
}

fn counts(counters: &Counters) -> [i64; 4] {
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = *counters;
    [rx_packets, rx_bytes, tx_packets, tx_bytes].map(u64::cast_signed)
}
