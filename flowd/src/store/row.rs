//! Rows to records and back.

use std::{collections::HashMap, net::Ipv6Addr, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;
use rusqlite::{CachedStatement, Connection, Row, Statement, params};

use super::chunks;
use crate::{
    chunk::{self, NameId},
    flows::{
        Counters, EndReason, Entry, Icmp, Identity, Initiator, Record, TcpFlags, Tuple, Verdict,
    },
};

/// The columns of a record since version 1 of the schema.
const RECORD: &str = "record_id, interface_id, protocol, peer_addr, remote_addr, \
    peer_port, remote_port, overflow, first_seen, last_seen, window_start, window_end, initiator, \
    icmp, peer_id, remote_peer_id, verdict, enforced, rule, policy_revision, tcp_flags, \
    rx_packets_total, rx_bytes_total, tx_packets_total, tx_bytes_total, rx_packets, rx_bytes, \
    tx_packets, tx_bytes, end_reason";
/// Those that it has since version 2.
const RESOURCES: &str = "peer_resource, remote_resource";

/// The same columns of the newest ledger: a record of nothing that follows the last one.
pub(super) const LEDGER: &str = "0, interface_id, protocol, peer_addr, remote_addr, peer_port, \
    remote_port, overflow, first_seen, last_seen, window_end, window_end, initiator, icmp, peer_id, \
    remote_peer_id, verdict, enforced, rule, policy_revision, tcp_flags, rx_packets_total, \
    rx_bytes_total, tx_packets_total, tx_bytes_total, 0, 0, 0, 0, NULL, \
    peer_resource, remote_resource, ifindex, generation, started_ns";

/// What [`record`] reads of a record, in a segment of this version.
pub(super) fn columns(version: usize) -> String {
    let resources = if version < 2 { "NULL, NULL" } else { RESOURCES };
    format!("{RECORD}, {resources}, NULL, NULL, NULL")
}

/// The names that the rows of one segment point to.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) interfaces: HashMap<i64, Arc<str>, RandomState>,
    pub(super) peers: HashMap<i64, Arc<Identity>, RandomState>,
    /// Rules and resources, as chunks number them.
    pub(super) words: HashMap<u32, Arc<str>, RandomState>,
}

impl Names {
    /// All of them.
    pub(super) fn whole(conn: &Connection, version: usize) -> rusqlite::Result<Self> {
        let words = chunks::words(conn, version)?;
        Ok(Self { words, ..Self::read(conn)? })
    }

    /// All but the words.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut names = Self::default();
        let mut query = conn.prepare("SELECT interface_id, name FROM interface")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            names.interfaces.insert(row.get(0)?, name.into());
        }
        let mut query = conn.prepare(
            "SELECT peer_id, public_key, name, user, device, groups, endpoint FROM peer",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (groups, endpoint): (String, Option<String>) = (row.get(5)?, row.get(6)?);
            let identity = Identity {
                public_key: row.get(1)?,
                name: row.get(2)?,
                user: row.get(3)?,
                device: row.get(4)?,
                groups: serde_json::from_str(&groups).map_err(|e| wrong(5, e))?,
                endpoint: endpoint.map(|text| text.parse().map_err(|e| wrong(6, e))).transpose()?,
            };
            names.peers.insert(row.get(0)?, identity.into());
        }
        Ok(names)
    }

    /// The record of a row of a chunk.
    pub(super) fn record(&self, row: &chunk::Row) -> Record {
        let word = |id: NameId| id.and_then(|id| self.words.get(&id.get()).cloned());
        let texts = Texts {
            rule: word(row.rule),
            peer_resource: word(row.peer_resource),
            remote_resource: word(row.remote_resource),
        };
        self.with_texts(row, texts)
    }

    fn with_texts(&self, row: &chunk::Row, texts: Texts) -> Record {
        let peer = |id: NameId| id.and_then(|id| self.peers.get(&i64::from(id.get())).cloned());
        let interface = self.interfaces.get(&i64::from(row.interface));
        Record {
            record_id: row.record_id,
            interface: interface.cloned().unwrap_or_else(|| "?".into()),
            entry: Entry::default(),
            tuple: row.tuple,
            window_start_ms: row.window_start_ms,
            window_end_ms: row.window_end_ms,
            first_seen_ms: row.first_seen_ms,
            last_seen_ms: row.last_seen_ms,
            initiator: row.initiator,
            icmp: row.icmp,
            peer: peer(row.peer),
            remote_peer: peer(row.remote_peer),
            peer_resource: texts.peer_resource,
            remote_resource: texts.remote_resource,
            verdict: row.verdict,
            enforced: row.enforced,
            rule: texts.rule,
            policy_revision: row.policy_revision,
            counters: row.counters,
            total: row.total,
            tcp_flags: row.tcp_flags,
            end_reason: row.end_reason,
            overflow: row.overflow,
        }
    }
}

fn wrong(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}

/// What stands in a row as text, and in a chunk as the number of a word.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) rule: Option<Arc<str>>,
    pub(super) peer_resource: Option<Arc<str>>,
    pub(super) remote_resource: Option<Arc<str>>,
}

/// A row of [`columns`] or [`LEDGER`].
pub(super) fn record(row: &Row<'_>, names: &Names) -> rusqlite::Result<Record> {
    let entry = Entry {
        ifindex: row.get::<_, Option<u32>>(32)?.unwrap_or_default(),
        generation: row.get::<_, Option<u8>>(33)?.unwrap_or_default(),
        started_ns: row.get::<_, Option<i64>>(34)?.unwrap_or_default().cast_unsigned(),
    };
    let (numbers, texts) = numbers(row)?;
    Ok(Record { entry, ..names.with_texts(&numbers, texts) })
}

/// The same, without names: what is text stands beside it.
pub(super) fn numbers(row: &Row<'_>) -> rusqlite::Result<(chunk::Row, Texts)> {
    let addr = |column| row.get::<_, [u8; 16]>(column).map(Ipv6Addr::from);
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let counters = |column| -> rusqlite::Result<Counters> {
        Ok(Counters {
            rx_packets: count(column)?,
            rx_bytes: count(column + 1)?,
            tx_packets: count(column + 2)?,
            tx_bytes: count(column + 3)?,
        })
    };
    let peer = |column| -> rusqlite::Result<NameId> {
        Ok(row.get::<_, Option<u32>>(column)?.and_then(NonZeroU32::new))
    };
    let text = |column| row.get::<_, Option<Arc<str>>>(column);
    let outside =
        |column, value: u8| rusqlite::Error::IntegralValueOutOfRange(column, i64::from(value));
    let (initiator, verdict): (u8, u8) = (row.get(12)?, row.get(16)?);
    let end: Option<u8> = row.get(29)?;
    let icmp: Option<u16> = row.get(13)?;
    let [rx, tx] = row.get::<_, u16>(20)?.to_be_bytes();
    let texts = Texts { rule: text(18)?, peer_resource: text(30)?, remote_resource: text(31)? };
    let numbers = chunk::Row {
        record_id: count(0)?,
        interface: row.get(1)?,
        peer: peer(14)?,
        remote_peer: peer(15)?,
        peer_resource: None,
        remote_resource: None,
        rule: None,
        tuple: Tuple {
            protocol: row.get(2)?,
            peer_addr: addr(3)?,
            remote_addr: addr(4)?,
            peer_port: row.get(5)?,
            remote_port: row.get(6)?,
        },
        overflow: row.get(7)?,
        first_seen_ms: row.get(8)?,
        last_seen_ms: row.get(9)?,
        window_start_ms: row.get(10)?,
        window_end_ms: row.get(11)?,
        initiator: Initiator::from_number(initiator).ok_or_else(|| outside(12, initiator))?,
        icmp: icmp.map(u16::to_be_bytes).map(|[kind, code]| Icmp { r#type: kind, code }),
        verdict: Verdict::from_number(verdict).ok_or_else(|| outside(16, verdict))?,
        enforced: row.get(17)?,
        policy_revision: row.get(19)?,
        tcp_flags: TcpFlags { rx, tx },
        total: counters(21)?,
        counters: counters(25)?,
        end_reason: end
            .map(|end| EndReason::from_number(end).ok_or_else(|| outside(29, end)))
            .transpose()?,
    };
    Ok((numbers, texts))
}

/// What a record points to, in the segment that takes it.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) interface: i64,
    pub(super) peer: Option<i64>,
    pub(super) remote_peer: Option<i64>,
}

/// What is written of each record, prepared once a transaction.
pub(super) struct Writing<'c> {
    record: CachedStatement<'c>,
    open: CachedStatement<'c>,
    ended: CachedStatement<'c>,
}

impl<'c> Writing<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        let record =
            format!("INSERT INTO record ({RECORD}, {RESOURCES}) VALUES (?{})", ",?".repeat(31));
        Ok(Self {
            record: conn.prepare_cached(&record)?,
            open: conn.prepare_cached(
                "INSERT OR REPLACE INTO open_flow (first_seen, interface_id, protocol, \
                 peer_addr, remote_addr, peer_port, remote_port, last_seen, window_end, \
                 initiator, icmp, peer_id, remote_peer_id, verdict, enforced, rule, \
                 policy_revision, tcp_flags, rx_packets_total, rx_bytes_total, tx_packets_total, \
                 tx_bytes_total, peer_resource, remote_resource, overflow, ifindex, generation, \
                 started_ns) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            )?,
            ended: conn.prepare_cached(
                "DELETE FROM open_flow WHERE first_seen = ? AND interface_id = ? \
                 AND protocol = ? AND peer_addr = ? AND remote_addr = ? AND peer_port = ? \
                 AND remote_port = ?",
            )?,
        })
    }

    /// A record as a row.
    pub(super) fn record(&mut self, record: &Record, ids: Ids) -> rusqlite::Result<()> {
        insert_record(&mut self.record, record, ids)
    }

    /// What of the records' flows is recorded once all of them are: the last record of each flow
    /// says it. In the order of the ledger, so that neighbours are written one after the other.
    pub(super) fn ledger(&mut self, records: &[Record], ids: &[Ids]) -> rusqlite::Result<()> {
        let flow = |at: usize| (ids[at].interface, &records[at].tuple);
        let by_start = records.iter().map(|record| record.first_seen_ms).zip(0..);
        let mut order: Vec<(i64, usize)> = by_start.collect();
        order.sort_unstable_by(|one, other| {
            let (start, other_start) = (one.0, other.0);
            let same_start = || flow(one.1).cmp(&flow(other.1)).then(one.1.cmp(&other.1));
            start.cmp(&other_start).then_with(same_start)
        });
        let is_same = |one: &(i64, usize), other: &(i64, usize)| {
            one.0 == other.0 && flow(one.1) == flow(other.1)
        };
        for of_flow in order.chunk_by(is_same) {
            let [(_, first), ..] = *of_flow else { continue };
            let last = of_flow[of_flow.len() - 1].1;
            let (first, record, ids) = (&records[first], &records[last], ids[last]);
            match record.end_reason {
                None => self.open(record, ids)?,
                // Nothing was recorded of it before, so the ledger does not have it.
                Some(_) if first.counters == first.total => {}
                Some(_) => forget(&mut self.ended, record, ids)?,
            }
        }
        Ok(())
    }

    /// What of an open flow is recorded.
    pub(super) fn open(&mut self, record: &Record, ids: Ids) -> rusqlite::Result<()> {
        note_open(&mut self.open, record, ids)
    }
}

fn insert_record(statement: &mut Statement<'_>, r: &Record, ids: Ids) -> rusqlite::Result<()> {
    let (t, c, n) = (&r.tuple, &r.total, &r.counters);
    statement.execute(params![
        r.record_id.cast_signed(),
        ids.interface,
        t.protocol,
        t.peer_addr.octets(),
        t.remote_addr.octets(),
        t.peer_port,
        t.remote_port,
        r.overflow,
        r.first_seen_ms,
        r.last_seen_ms,
        r.window_start_ms,
        r.window_end_ms,
        r.initiator.number(),
        icmp(r),
        ids.peer,
        ids.remote_peer,
        r.verdict.number(),
        r.enforced,
        r.rule.as_deref(),
        r.policy_revision,
        flags(r),
        c.rx_packets.cast_signed(),
        c.rx_bytes.cast_signed(),
        c.tx_packets.cast_signed(),
        c.tx_bytes.cast_signed(),
        n.rx_packets.cast_signed(),
        n.rx_bytes.cast_signed(),
        n.tx_packets.cast_signed(),
        n.tx_bytes.cast_signed(),
        r.end_reason.map(EndReason::number),
        r.peer_resource.as_deref(),
        r.remote_resource.as_deref(),
    ])?;
    Ok(())
}

fn note_open(statement: &mut Statement<'_>, r: &Record, ids: Ids) -> rusqlite::Result<()> {
    let (t, c) = (&r.tuple, &r.total);
    statement.execute(params![
        r.first_seen_ms,
        ids.interface,
        t.protocol,
        t.peer_addr.octets(),
        t.remote_addr.octets(),
        t.peer_port,
        t.remote_port,
        r.last_seen_ms,
        r.window_end_ms,
        r.initiator.number(),
        icmp(r),
        ids.peer,
        ids.remote_peer,
        r.verdict.number(),
        r.enforced,
        r.rule.as_deref(),
        r.policy_revision,
        flags(r),
        c.rx_packets.cast_signed(),
        c.rx_bytes.cast_signed(),
        c.tx_packets.cast_signed(),
        c.tx_bytes.cast_signed(),
        r.peer_resource.as_deref(),
        r.remote_resource.as_deref(),
        r.overflow,
        r.entry.ifindex,
        r.entry.generation,
        r.entry.started_ns.cast_signed(),
    ])?;
    Ok(())
}

fn forget(statement: &mut Statement<'_>, r: &Record, ids: Ids) -> rusqlite::Result<()> {
    let t = &r.tuple;
    statement.execute(params![
        r.first_seen_ms,
        ids.interface,
        t.protocol,
        t.peer_addr.octets(),
        t.remote_addr.octets(),
        t.peer_port,
        t.remote_port,
    ])?;
    Ok(())
}

fn icmp(r: &Record) -> Option<u16> {
    r.icmp.map(|icmp| u16::from_be_bytes([icmp.r#type, icmp.code]))
}

fn flags(r: &Record) -> u16 {
    u16::from_be_bytes([r.tcp_flags.rx, r.tcp_flags.tx])
}
