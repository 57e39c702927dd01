//! What happened to peers: when they came, went and moved.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, Row, params};

use super::{
    ReadError, Reader, WriteError, Writer, coverage,
    coverage::StoredInterval,
    peer_state::{self, PeerState, SINCE_VERSION, address},
    reader::{open_file, read},
    segment::Interned,
};
use crate::flows::{Filter, Identity, PeerEvent, PeerEventKind};

/// What happened to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent<P = Arc<Identity>> {
    /// The interface that has the peer, or had.
    pub interface: Arc<str>,
    /// Who it was.
    pub peer: P,
    /// What.
    pub event: PeerEvent,
}

/// Everything new about peers; what a daemon must know of them changes with what it tells of them.
#[derive(Clone, Debug, Default)]
pub struct PeerNews {
    /// In order.
    pub events: Vec<StoredEvent>,
    /// Windows that are over.
    pub intervals: Vec<StoredInterval>,
    /// Peers as they are now; the last of equals counts.
    pub states: Vec<PeerState>,
}

impl PeerNews {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.intervals.is_empty() && self.states.is_empty()
    }
}

impl Writer {
    /// Stores all of it, or nothing.
    pub fn put_peer_news(&mut self, now_ms: i64, news: &PeerNews) -> Result<(), WriteError> {
        let PeerNews { events, intervals, states } = news;
        self.transaction(now_ms, |tx, interned| {
            for event in events {
                insert(tx, interned, event)?;
            }
            for interval in intervals {
                coverage::insert(tx, interned, interval)?;
            }
            for state in states {
                peer_state::upsert(tx, state)?;
            }
            Ok(())
        })
    }
}

impl Reader {
    /// What happened to a peer in a range, in the order in which it was noticed: WireGuard tells the
    /// time of a handshake to the second, where it tells it at all.
    pub fn peer_events(
        &self,
        public_key: &str,
        since_ms: Option<i64>,
        until_ms: Option<i64>,
    ) -> Result<Vec<StoredEvent<()>>, ReadError> {
        let mut events = Vec::new();
        // The end of a session may be noticed long after, when flowd was down.
        for path in self.paths(&Filter { since_ms, ..Filter::default() })? {
            let Some((conn, version)) = open_file(&path)? else { continue };
            if version >= SINCE_VERSION {
                let found = of_peer(&conn, public_key, since_ms, until_ms);
                events.extend(found.map_err(read(&path))?);
            }
        }
        Ok(events)
    }

    /// Who bore a name, or a key, or the start of one, when it was last heard of in the store.
    pub fn find_peers(&self, wanted: &str) -> Result<Vec<Identity>, ReadError> {
        for path in self.paths(&Filter::default())?.into_iter().rev() {
            let Some((conn, _)) = open_file(&path)? else { continue };
            let found = named(&conn, wanted).map_err(read(&path))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

/// The newest row of each peer that is meant.
fn named(conn: &Connection, wanted: &str) -> rusqlite::Result<Vec<Identity>> {
    let mut query = conn.prepare(
        "SELECT public_key, name, user, device, groups, endpoint FROM peer \
         WHERE name = ?1 OR substr(public_key, 1, length(?1)) = ?1 ORDER BY peer_id",
    )?;
    let mut rows = query.query([wanted])?;
    let mut by_key = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let groups: String = row.get(4)?;
        let identity = Identity {
            public_key: row.get(0)?,
            name: row.get(1)?,
            user: row.get(2)?,
            device: row.get(3)?,
            groups: serde_json::from_str(&groups).unwrap_or_default(),
            endpoint: address(row, 5)?,
        };
        if identity.is(wanted) {
            by_key.insert(identity.public_key.clone(), identity);
        }
    }
    Ok(by_key.into_values().collect())
}

fn of_peer(
    conn: &Connection,
    public_key: &str,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
) -> rusqlite::Result<Vec<StoredEvent<()>>> {
    let mut query = conn.prepare_cached(
        "SELECT at, kind, interface.name, epoch, peer_event.endpoint, was \
         FROM peer_event JOIN interface USING (interface_id) \
         WHERE peer_id IN (SELECT peer_id FROM peer WHERE public_key = ?) \
         AND at >= ? AND at < ? ORDER BY peer_event.rowid",
    )?;
    let range = (public_key, since_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
    query.query_map(range, event)?.collect()
}

fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent<()>> {
    let kind: u8 = row.get(1)?;
    let kind = PeerEventKind::from_number(kind)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(1, i64::from(kind)))?;
    Ok(StoredEvent {
        interface: row.get::<_, String>(2)?.into(),
        peer: (),
        event: PeerEvent {
            at_ms: row.get(0)?,
            kind,
            epoch: row.get(3)?,
            endpoint: address(row, 4)?,
            was: address(row, 5)?,
        },
    })
}

fn insert(
    conn: &Connection,
    interned: &mut Interned,
    stored: &StoredEvent,
) -> rusqlite::Result<()> {
    let StoredEvent { interface, peer, event } = stored;
    let PeerEvent { at_ms, kind, epoch, endpoint, was } = event;
    let (interface, peer) = (interned.interface(conn, interface)?, interned.peer(conn, peer)?);
    conn.prepare_cached("INSERT INTO peer_event VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(
        params![
            at_ms,
            kind.number(),
            interface,
            peer,
            epoch,
            endpoint.map(|endpoint| endpoint.to_string()),
            was.map(|endpoint| endpoint.to_string()),
        ],
    )?;
    Ok(())
}

#[cfg(test)]
#[path = "peer_news_tests.rs"]
mod tests;
