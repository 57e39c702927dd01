//! What a daemon must know of every peer that the one before it saw.

use std::{net::SocketAddr, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};

use super::{WriteError, Writer};
use crate::flows::Outer;

/// The version of the schema that brought what is told of peers.
pub(super) const SINCE_VERSION: usize = 3;
/// Peers that were removed longer ago are forgotten when a day begins: one that comes again is new.
const REMEMBERED_MS: i64 = 30 * 86_400_000;

const COLUMNS: &str =
    "interface, public_key, epoch, rx_bytes, tx_bytes, handshake, connected, gone, endpoint";

/// One peer of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its name.
    pub interface: Arc<str>,
    /// In base64.
    pub public_key: String,
    /// How often WireGuard's counters of the peer had started from zero.
    pub epoch: u32,
    /// WireGuard's counters at the last look.
    pub outer: Outer,
    /// Unix milliseconds of the newest handshake.
    pub handshake_ms: Option<i64>,
    /// Unix milliseconds since when it is there; `None`: it is not.
    pub connected_ms: Option<i64>,
    /// Unix milliseconds at which it was removed; `None`: it was not.
    pub gone_ms: Option<i64>,
    /// Its outer address.
    pub endpoint: Option<SocketAddr>,
}

/// What the next segment must know of peers.
#[derive(Clone, Debug, Default)]
pub(super) struct CarriedPeers(Vec<PeerState>);

impl CarriedPeers {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let sql = format!(
            "SELECT {COLUMNS} FROM peer_state WHERE gone IS NULL \
             OR gone > (SELECT max(gone) FROM peer_state) - {REMEMBERED_MS}"
        );
        conn.prepare(&sql)?.query_map([], state)?.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        self.0.iter().try_for_each(|state| upsert(conn, state))
    }
}

impl Writer {
    /// The peers that were not removed when they were last looked at.
    pub fn peer_states(&self) -> Result<Vec<PeerState>, WriteError> {
        let mut states = self.peers()?.0;
        states.retain(|state| state.gone_ms.is_none());
        Ok(states)
    }

    /// One peer, removed or not.
    pub fn peer_state(
        &self,
        interface: &str,
        public_key: &str,
    ) -> Result<Option<PeerState>, WriteError> {
        let Some(conn) = self.conn() else {
            let is_it = |state: &PeerState| {
                &*state.interface == interface && state.public_key == public_key
            };
            return Ok(self.peers()?.0.into_iter().find(is_it));
        };
        let sql =
            format!("SELECT {COLUMNS} FROM peer_state WHERE interface = ? AND public_key = ?");
        let mut query = conn.prepare_cached(&sql)?;
        Ok(query.query_row((interface, public_key), state).optional()?)
    }
}

pub(super) fn upsert(conn: &Connection, state: &PeerState) -> rusqlite::Result<()> {
    let PeerState {
        interface,
        public_key,
        epoch,
        outer,
        handshake_ms,
        connected_ms,
        gone_ms,
        endpoint,
    } = state;
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO peer_state ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?
    .execute(params![
        interface,
        public_key,
        epoch,
        outer.rx_bytes.cast_signed(),
        outer.tx_bytes.cast_signed(),
        handshake_ms,
        connected_ms,
        gone_ms,
        endpoint.map(|endpoint| endpoint.to_string()),
    ])?;
    Ok(())
}

fn state(row: &Row<'_>) -> rusqlite::Result<PeerState> {
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    Ok(PeerState {
        interface: row.get::<_, String>(0)?.into(),
        public_key: row.get(1)?,
        epoch: row.get(2)?,
        outer: Outer { rx_bytes: count(3)?, tx_bytes: count(4)? },
        handshake_ms: row.get(5)?,
        connected_ms: row.get(6)?,
        gone_ms: row.get(7)?,
        endpoint: address(row, 8)?,
    })
}

/// An outer address, or none.
pub(super) fn address(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<SocketAddr>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse()).transpose().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}
