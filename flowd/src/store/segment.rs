//! One file: a UTC day, with everything that its records point to.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions, Permissions},
    ops::ControlFlow,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::{
    OpenError,
    gaps::CarriedGaps,
    peer_state::CarriedPeers,
    row::{self, Ids, Names},
    schema,
    state::State,
};
use crate::flows::{Identity, Record};

/// What a new segment starts with: it is the newest from then on.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) ledger: Vec<Record>,
    pub(super) state: State,
    pub(super) gaps: CarriedGaps,
    pub(super) peers: CarriedPeers,
}

/// The segment that takes records now.
#[derive(Debug)]
pub(super) struct Segment {
    /// UTC, as in the file's name.
    pub(super) day: String,
    conn: Connection,
    interned: Interned,
}

/// The rows of names that are there already.
#[derive(Debug, Default)]
pub(super) struct Interned {
    interfaces: HashMap<Arc<str>, i64>,
    peers: HashMap<Arc<Identity>, i64>,
}

impl Segment {
    /// Opens the segment of a day; a new one takes what is carried over.
    pub(super) fn open(
        dir: &Path,
        day: &str,
        gateway: &str,
        carried: &Carried,
    ) -> Result<Self, OpenError> {
        let path = dir.join(format!("{day}.sqlite"));
        prepare(&path, day, gateway, carried)
            .map_err(|source| OpenError::Segment { path, source: Box::new(source) })
    }

    /// Runs `write` in one transaction. On an error nothing has changed.
    pub(super) fn transaction<T>(
        &mut self,
        write: impl FnOnce(&Transaction<'_>, &mut Interned) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = write(&tx, &mut self.interned).and_then(|done| {
            tx.commit()?;
            Ok(done)
        });
        if outcome.is_err() {
            // Rows that were made for it are gone.
            self.interned = Interned::default();
            self.interned = Interned::read(&self.conn)?;
        }
        outcome
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// What the next segment must know.
    pub(super) fn carried(&self) -> rusqlite::Result<Carried> {
        let mut ledger = Vec::new();
        self.for_each_open(|record| {
            ledger.push(record);
            ControlFlow::Continue(())
        })?;
        let (state, gaps) = (State::read(&self.conn)?, CarriedGaps::read(&self.conn)?);
        let peers = CarriedPeers::read(&self.conn)?;
        Ok(Carried { ledger, state, gaps, peers })
    }

    /// Shows open flows to `visit` until it says stop, each as a record of nothing since its last one.
    pub(super) fn for_each_open(
        &self,
        mut visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let names = Names::read(&self.conn)?;
        let mut query = self.conn.prepare(&format!("SELECT {} FROM open_flow", row::LEDGER))?;
        for record in query.query_map([], |row| row::record(row, &names))? {
            if visit(record?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The highest record id; 0: it has no record.
    pub(super) fn last_record_id(&self) -> rusqlite::Result<u64> {
        last_record_id(&self.conn)
    }

    /// Folds the write-ahead log into the file.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "a segment was not closed; its log is read next time");
        }
    }
}

impl Interned {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let Names { interfaces, peers } = Names::read(conn)?;
        Ok(Self {
            interfaces: interfaces.into_iter().map(|(id, name)| (name, id)).collect(),
            peers: peers.into_iter().map(|(id, identity)| (identity, id)).collect(),
        })
    }

    /// What a record points to; made where the segment does not have it.
    pub(super) fn ids(&mut self, conn: &Connection, record: &Record) -> rusqlite::Result<Ids> {
        let mut peer = |identity: &Option<Arc<Identity>>| match identity {
            Some(identity) => self.peer(conn, identity).map(Some),
            None => Ok(None),
        };
        let (peer, remote_peer) = (peer(&record.peer)?, peer(&record.remote_peer)?);
        Ok(Ids { interface: self.interface(conn, &record.interface)?, peer, remote_peer })
    }

    /// The row of an interface's name.
    pub(super) fn interface(
        &mut self,
        conn: &Connection,
        name: &Arc<str>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.interfaces.get(name) {
            return Ok(*id);
        }
        conn.prepare_cached("INSERT INTO interface (name) VALUES (?)")?.execute([&**name])?;
        let id = conn.last_insert_rowid();
        self.interfaces.insert(name.clone(), id);
        Ok(id)
    }

    /// The row of what a peer was at one time.
    pub(super) fn peer(
        &mut self,
        conn: &Connection,
        identity: &Arc<Identity>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.peers.get(identity) {
            return Ok(*id);
        }
        let Identity { public_key, name, user, device, groups, endpoint } = &**identity;
        conn.prepare_cached(
            "INSERT INTO peer (public_key, name, user, device, groups, endpoint) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            public_key,
            name,
            user,
            device,
            serde_json::Value::from(groups.clone()).to_string(),
            endpoint.map(|endpoint| endpoint.to_string()),
        ])?;
        let id = conn.last_insert_rowid();
        self.peers.insert(identity.clone(), id);
        Ok(id)
    }
}

/// The highest record id of a segment that is left as it is.
pub(super) fn last_record_id_of(path: &Path) -> Result<u64, OpenError> {
    let read = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        schema::check(&conn)?;
        Ok(last_record_id(&conn)?)
    };
    read().map_err(|source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) })
}

fn last_record_id(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(record_id), 0) FROM record";
    let last: i64 = conn.query_row(sql, [], |row| row.get(0))?;
    Ok(last.cast_unsigned())
}

fn prepare(path: &Path, day: &str, gateway: &str, carried: &Carried) -> Result<Segment, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    // Made here, so that its mode, which SQLite gives to the log too, depends on no umask.
    let mut file = OpenOptions::new();
    file.create(true).truncate(false).write(true).mode(0o640);
    let file = file.open(path).map_err(io)?;
    drop(file);
    let mut conn = Connection::open(path)?;
    let found = schema::check(&conn)?;
    fs::set_permissions(path, Permissions::from_mode(0o640)).map_err(io)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    let mut interned = Interned::default();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&tx, found)?;
    let owner: Option<String> =
        tx.query_row("SELECT gateway FROM meta", [], |row| row.get(0)).optional()?;
    match owner {
        Some(found) if found != gateway => return Err(OpenError::OtherGateway { found }),
        Some(_) => {}
        None => {
            tx.execute("INSERT INTO meta VALUES (1, ?, ?)", params![gateway, day])?;
            for record in &carried.ledger {
                let ids = interned.ids(&tx, record)?;
                row::upsert_open(&tx, record, ids)?;
            }
            carried.state.write(&tx)?;
            carried.gaps.write(&tx, &mut interned)?;
            carried.peers.write(&tx)?;
        }
    }
    tx.commit()?;
    let interned = Interned::read(&conn)?;
    Ok(Segment { day: day.to_owned(), conn, interned })
}
