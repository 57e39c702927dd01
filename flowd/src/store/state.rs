//! What a daemon must know of the one before it, beside the ledger.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv6Addr,
};

use rusqlite::{Connection, params, types::Type};

use flowd_common::peer::PeerId;

use crate::flows::{Counters, Entry, Record, Tuple};

/// Bytes of an [`EntryId`] in the store.
const ENTRY_BYTES: usize = 50;

/// In place of a boot: the ledger was lost with its segment.
const LOST: &str = "lost";

/// Names an entry of the kernel's table for ever: endpoints and number of the interface come again,
/// the instant does not.
pub type EntryId = (Tuple, Entry);

/// Of the newest segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The boot whose kernel the ledger speaks of; `None`: of no kernel, or of a flowd before 0.2.
    pub boot_id: Option<String>,
    /// Those of its tables that the ledger speaks of.
    pub tables: Option<String>,
    /// Unix milliseconds of the last drain.
    pub alive_ms: Option<i64>,
    /// Whether that one recorded everything, and the daemon then stopped.
    pub is_clean: bool,
    /// Entries that may still be in the kernel's table although their last records are in the
    /// store: a daemon that dies in between leaves them.
    pub ended: HashSet<EntryId>,
    /// What flows did that have left the tables.
    pub finished: Sums,
}

/// Counters by number of the interface and of the peer.
pub type Sums = HashMap<(u32, PeerId), Counters>;

/// What leaves the kernel's tables with a transaction.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    /// What the flows did.
    pub sums: Sums,
    /// The tables that the ledger speaks of from now on, where they are others.
    pub tables: Option<String>,
}

impl State {
    /// Of a segment that follows one whose ledger cannot be read.
    pub(super) fn lost() -> Self {
        Self { boot_id: Some(LOST.to_owned()), ..Self::default() }
    }

    /// Whether nobody knows what is recorded of the entries in the kernel's tables.
    pub fn is_lost(&self) -> bool {
        self.boot_id.as_deref() == Some(LOST)
    }

    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT boot_id, tables, alive, clean, ended FROM state";
        conn.query_row(sql, [], |row| {
            let ended: Option<Vec<u8>> = row.get(4)?;
            let ended = ended.unwrap_or_default();
            if !ended.len().is_multiple_of(ENTRY_BYTES) {
                return Err(rusqlite::Error::InvalidColumnType(4, "ended".into(), Type::Blob));
            }
            let ended = ended.chunks_exact(ENTRY_BYTES).map(decode).collect();
            Ok(Self {
                boot_id: row.get(0)?,
                tables: row.get(1)?,
                alive_ms: row.get(2)?,
                is_clean: row.get(3)?,
                ended,
                finished: read_finished(conn)?,
            })
        })
    }

    /// Adds what has left the tables.
    pub(super) fn leave(&mut self, leaving: &Leaving) {
        if let Some(tables) = &leaving.tables {
            self.tables = Some(tables.clone());
        }
        for (key, counters) in &leaving.sums {
            *self.finished.entry(*key).or_default() += *counters;
        }
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        let Self { boot_id, tables, alive_ms, is_clean, ended, finished } = self;
        let ended: Vec<u8> = ended.iter().flat_map(|(tuple, entry)| encode(tuple, entry)).collect();
        conn.execute(
            "UPDATE state SET boot_id = ?, tables = ?, alive = ?, clean = ?, ended = ?",
            params![boot_id, tables, alive_ms, is_clean, ended],
        )?;
        conn.execute("DELETE FROM finished", [])?;
        add_finished(conn, finished)
    }
}

fn read_finished(conn: &Connection) -> rusqlite::Result<Sums> {
    let mut query = conn.prepare(
        "SELECT ifindex, peer, rx_packets, rx_bytes, tx_packets, tx_bytes FROM finished",
    )?;
    let rows = query.query_map([], |row| {
        let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let counters = Counters {
            rx_packets: count(2)?,
            rx_bytes: count(3)?,
            tx_packets: count(4)?,
            tx_bytes: count(5)?,
        };
        Ok(((row.get(0)?, row.get(1)?), counters))
    })?;
    rows.collect()
}

/// Notes what has left the tables.
pub(super) fn write_leaving(conn: &Connection, leaving: &Leaving) -> rusqlite::Result<()> {
    if let Some(tables) = &leaving.tables {
        conn.execute("UPDATE state SET tables = ?", [tables])?;
    }
    add_finished(conn, &leaving.sums)
}

fn add_finished(conn: &Connection, finished: &Sums) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO finished VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET \
         rx_packets = rx_packets + excluded.rx_packets, rx_bytes = rx_bytes + excluded.rx_bytes, \
         tx_packets = tx_packets + excluded.tx_packets, tx_bytes = tx_bytes + excluded.tx_bytes",
    )?;
    for ((ifindex, peer), counters) in finished {
        let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = counters;
        insert.execute(params![
            ifindex,
            peer,
            rx_packets.cast_signed(),
            rx_bytes.cast_signed(),
            tx_packets.cast_signed(),
            tx_bytes.cast_signed(),
        ])?;
    }
    Ok(())
}

/// Notes which flows have ended with these records. What had ended before has left the kernel's
/// table by now, but for what is `left` of the daemon before.
pub(super) fn write_ended(
    conn: &Connection,
    left: &HashSet<EntryId>,
    records: &[Record],
) -> rusqlite::Result<()> {
    let mut ended = Vec::new();
    for record in records.iter().filter(|record| record.end_reason.is_some()) {
        ended.extend_from_slice(&encode(&record.tuple, &record.entry));
    }
    if !ended.is_empty() {
        ended.extend(left.iter().flat_map(|(tuple, entry)| encode(tuple, entry)));
        conn.prepare_cached("UPDATE state SET ended = ?")?.execute([ended])?;
    }
    Ok(())
}

pub(super) fn write_alive(conn: &Connection, now_ms: i64, is_clean: bool) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE state SET alive = ?, clean = ?")?
        .execute(params![now_ms, is_clean])?;
    Ok(())
}

fn encode(tuple: &Tuple, entry: &Entry) -> [u8; ENTRY_BYTES] {
    let Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port } = tuple;
    let Entry { ifindex, generation, started_ns } = entry;
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(&started_ns.to_le_bytes());
    bytes[8..12].copy_from_slice(&ifindex.to_le_bytes());
    bytes[12] = *generation;
    bytes[13] = *protocol;
    bytes[14..30].copy_from_slice(&peer_addr.octets());
    bytes[30..46].copy_from_slice(&remote_addr.octets());
    bytes[46..48].copy_from_slice(&peer_port.to_le_bytes());
    bytes[48..].copy_from_slice(&remote_port.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> EntryId {
    fn part<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&bytes[start..start + N]);
        part
    }
    let tuple = Tuple {
        protocol: bytes[13],
        peer_addr: Ipv6Addr::from(part::<16>(bytes, 14)),
        remote_addr: Ipv6Addr::from(part::<16>(bytes, 30)),
        peer_port: u16::from_le_bytes(part(bytes, 46)),
        remote_port: u16::from_le_bytes(part(bytes, 48)),
    };
    let entry = Entry {
        started_ns: u64::from_le_bytes(part(bytes, 0)),
        ifindex: u32::from_le_bytes(part(bytes, 8)),
        generation: bytes[12],
    };
    (tuple, entry)
}

#[cfg(test)]
mod tests {
    use super::{Entry, Tuple, decode, encode};

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let tuple = Tuple {
            protocol: 17,
            peer_addr: "2001:db8::1".parse().unwrap(),
            remote_addr: "::ffff:192.0.2.7".parse().unwrap(),
            peer_port: 40_001,
            remote_port: 53,
        };
        let entry = Entry { ifindex: 70_000, generation: 1, started_ns: u64::MAX - 5 };
        assert_eq!(decode(&encode(&tuple, &entry)), (tuple, entry));
    }
}
