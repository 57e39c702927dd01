//! What a daemon must know of the one before it, beside the ledger.

use std::{collections::HashSet, net::Ipv6Addr};

use rusqlite::{Connection, params, types::Type};

use crate::flows::{Entry, Record, Tuple};

/// Bytes of an [`EntryId`] in the store.
const ENTRY_BYTES: usize = 50;

/// Names an entry of the kernel's table for ever: endpoints and number of the interface come again,
/// the instant does not.
pub type EntryId = (Tuple, Entry);

/// Of the newest segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The boot whose kernel the ledger speaks of; `None`: of no kernel, or of a flowd before 0.2.
    pub boot_id: Option<String>,
    /// Unix milliseconds of the last drain.
    pub alive_ms: Option<i64>,
    /// Entries that may still be in the kernel's table although their last records are in the
    /// store: a daemon that dies in between leaves them.
    pub ended: HashSet<EntryId>,
}

impl State {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        conn.query_row("SELECT boot_id, alive, ended FROM state", [], |row| {
            let ended: Option<Vec<u8>> = row.get(2)?;
            let ended = ended.unwrap_or_default();
            if !ended.len().is_multiple_of(ENTRY_BYTES) {
                return Err(rusqlite::Error::InvalidColumnType(2, "ended".into(), Type::Blob));
            }
            let ended = ended.chunks_exact(ENTRY_BYTES).map(decode).collect();
            Ok(Self { boot_id: row.get(0)?, alive_ms: row.get(1)?, ended })
        })
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        let Self { boot_id, alive_ms, ended } = self;
        let ended: Vec<u8> = ended.iter().flat_map(|(tuple, entry)| encode(tuple, entry)).collect();
        conn.execute(
            "UPDATE state SET boot_id = ?, alive = ?, ended = ?",
            params![boot_id, alive_ms, ended],
        )?;
        Ok(())
    }
}

/// Notes which flows have ended with these records. What had ended before has left the kernel's
/// table by now.
pub(super) fn write_ended(conn: &Connection, records: &[Record]) -> rusqlite::Result<()> {
    let ended = records.iter().filter(|record| record.end_reason.is_some() && !record.overflow);
    let ended: Vec<u8> = ended.flat_map(|record| encode(&record.tuple, &record.entry)).collect();
    if !ended.is_empty() {
        conn.prepare_cached("UPDATE state SET ended = ?")?.execute([ended])?;
    }
    Ok(())
}

pub(super) fn write_alive(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE state SET alive = ?")?.execute([now_ms])?;
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
