//! Windows in which flows and WireGuard's own counters were compared.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::{
    ReadError, Reader,
    peer_state::SINCE_VERSION,
    reader::{open_file, read},
    segment::Interned,
};
use crate::flows::{Balance, Counters, Filter, Identity, Interval, Outer};

/// One window of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredInterval<P = Arc<Identity>> {
    /// The interface that had the peer.
    pub interface: Arc<str>,
    /// Who it was.
    pub peer: P,
    /// How often WireGuard's counters of the peer had started from zero.
    pub epoch: u32,
    /// The window.
    pub interval: Interval,
}

impl Reader {
    /// The windows of a peer that end in a range, oldest first.
    pub fn coverage(
        &self,
        public_key: &str,
        since_ms: Option<i64>,
        until_ms: Option<i64>,
    ) -> Result<Vec<StoredInterval<()>>, ReadError> {
        let mut intervals = Vec::new();
        // Windows are written when they are over, but late where the disk was full.
        for path in self.paths(&Filter { since_ms, ..Filter::default() })? {
            let Some((conn, version)) = open_file(&path)? else { continue };
            if version >= SINCE_VERSION {
                let found = of_peer(&conn, public_key, since_ms, until_ms);
                intervals.extend(found.map_err(read(&path))?);
            }
        }
        intervals.sort_by_key(|stored| stored.interval.end_ms);
        Ok(intervals)
    }
}

fn of_peer(
    conn: &Connection,
    public_key: &str,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
) -> rusqlite::Result<Vec<StoredInterval<()>>> {
    let mut query = conn.prepare_cached(
        "SELECT window_start, window_end, interface.name, epoch, rx_packets, rx_bytes, tx_packets, \
         tx_bytes, wireguard_rx_bytes, wireguard_tx_bytes, rx_off, tx_off \
         FROM coverage JOIN interface USING (interface_id) \
         WHERE peer_id IN (SELECT peer_id FROM peer WHERE public_key = ?) \
         AND window_end >= ? AND window_end < ? ORDER BY coverage.rowid",
    )?;
    let range = (public_key, since_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
    query.query_map(range, interval)?.collect()
}

fn interval(row: &Row<'_>) -> rusqlite::Result<StoredInterval<()>> {
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let balance = Balance {
        flows: Counters {
            rx_packets: count(4)?,
            rx_bytes: count(5)?,
            tx_packets: count(6)?,
            tx_bytes: count(7)?,
        },
        outer: Outer { rx_bytes: count(8)?, tx_bytes: count(9)? },
        rx_off: row.get(10)?,
        tx_off: row.get(11)?,
    };
    Ok(StoredInterval {
        interface: row.get::<_, String>(2)?.into(),
        peer: (),
        epoch: row.get(3)?,
        interval: Interval { start_ms: row.get(0)?, end_ms: row.get(1)?, balance },
    })
}

pub(super) fn insert(
    conn: &Connection,
    interned: &mut Interned,
    stored: &StoredInterval,
) -> rusqlite::Result<()> {
    let StoredInterval { interface, peer, epoch, interval } = stored;
    let Interval { start_ms, end_ms, balance } = interval;
    let Balance { flows, outer, rx_off, tx_off } = balance;
    let (interface, peer) = (interned.interface(conn, interface)?, interned.peer(conn, peer)?);
    conn.prepare_cached("INSERT INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            start_ms,
            end_ms,
            interface,
            peer,
            epoch,
            flows.rx_packets.cast_signed(),
            flows.rx_bytes.cast_signed(),
            flows.tx_packets.cast_signed(),
            flows.tx_bytes.cast_signed(),
            outer.rx_bytes.cast_signed(),
            outer.tx_bytes.cast_signed(),
            rx_off,
            tx_off,
        ])?;
    Ok(())
}
