//! One file: a UTC day, with everything that its records point to.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, OpenOptions, Permissions},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use foldhash::fast::RandomState;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, config::DbConfig,
    params,
};

use super::{
    OpenError, Synchronous, aside, chunks,
    gaps::CarriedGaps,
    peer_state::CarriedPeers,
    policy_file,
    row::{self, Ids, Names},
    schema,
    state::State,
    step::file_of,
};
use crate::flows::{Identity, Record};

/// What the writer keeps of a segment in memory at most: what a transaction of many records writes
/// fits, most pages of the ledger among it, and is not put into the log half-way.
const CACHE_KIB: i64 = 8 << 10;

/// What a new segment starts with: it is the newest from then on.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) ledger: Vec<Record>,
    pub(super) state: State,
    pub(super) gaps: CarriedGaps,
    pub(super) peers: CarriedPeers,
    /// The highest one so far.
    pub(super) last_record_id: u64,
}

impl Carried {
    /// After a segment that says nothing.
    pub(super) fn lost() -> Self {
        Self { state: State::lost(), ..Self::default() }
    }
}

/// Where segments are, whose they are, and how they are written.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) store: PathBuf,
    pub(super) segments: PathBuf,
    pub(super) gateway: String,
    pub(super) synchronous: Synchronous,
}

impl Place {
    pub(super) fn path(&self, day: &str) -> PathBuf {
        self.segments.join(format!("{day}.sqlite"))
    }
}

/// The segment that takes records now.
#[derive(Debug)]
pub(super) struct Segment {
    /// UTC, as in the file's name.
    pub(super) day: String,
    path: PathBuf,
    /// Device and inode: whether the path still means this file.
    file: (u64, u64),
    conn: Connection,
    interned: Interned,
}

/// The rows of names that are there already.
#[derive(Debug, Default)]
pub(super) struct Interned {
    store: PathBuf,
    interfaces: HashMap<Arc<str>, i64, RandomState>,
    /// A look-up goes over all that is known of a peer.
    peers: HashMap<Arc<Identity>, i64, RandomState>,
    policies: HashSet<u32, RandomState>,
}

/// What records of one transaction have pointed to. They share their names, so that the place of a
/// name in memory, which is its own as long as the name is held here, stands for it.
#[derive(Default)]
pub(super) struct Met<'r> {
    interface: Option<(&'r Arc<str>, i64)>,
    peers: HashMap<*const Identity, (&'r Identity, i64), RandomState>,
}

impl Segment {
    /// Opens the segment of a day. What is carried over replaces its ledger, and a new one needs
    /// it.
    pub(super) fn open(
        place: &Place,
        day: &str,
        carried: Option<&Carried>,
    ) -> Result<Self, OpenError> {
        let path = place.path(day);
        prepare(place, &path, day, carried)
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
            let store = std::mem::take(&mut self.interned).store;
            self.interned = Interned::read(&self.conn, store)?;
        }
        outcome
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn set_synchronous(&self, synchronous: Synchronous) -> rusqlite::Result<()> {
        set_synchronous(&self.conn, synchronous)
    }

    /// Device and inode.
    pub(super) fn file(&self) -> (u64, u64) {
        self.file
    }

    /// Whether the path means another file now, or none.
    pub(super) fn has_moved(&self) -> bool {
        file_of(&self.path) != Some(self.file)
    }

    /// Folds the write-ahead log into the file.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "a segment was not closed; its log is read next time");
        }
    }

    /// Lets go of a file that is out of use, and leaves it and its log as they are.
    pub(super) fn abandon(self) {
        let told = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if let Err(error) = told {
            tracing::debug!(%error, "the log of an abandoned segment is folded");
        }
    }
}

/// What the next segment must know of this one.
pub(super) fn carried(conn: &Connection) -> rusqlite::Result<Carried> {
    let (ledger, state) = (ledger(conn)?, State::read(conn)?);
    let gaps = CarriedGaps::read(conn)?;
    let peers = CarriedPeers::read(conn)?;
    Ok(Carried { ledger, state, gaps, peers, last_record_id: last_record_id(conn)? })
}

/// The whole ledger.
pub(super) fn ledger(conn: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut ledger = Vec::new();
    for_each_open(conn, |record| {
        ledger.push(record);
        ControlFlow::Continue(())
    })?;
    Ok(ledger)
}

/// Shows open flows to `visit` until it says stop, each as a record of nothing since its last one.
pub(super) fn for_each_open(
    conn: &Connection,
    mut visit: impl FnMut(Record) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let names = Names::read(conn)?;
    let mut query = conn.prepare(&format!("SELECT {} FROM open_flow", row::LEDGER))?;
    for record in query.query_map([], |row| row::record(row, &names))? {
        if visit(record?).is_break() {
            break;
        }
    }
    Ok(())
}

impl Interned {
    fn read(conn: &Connection, store: PathBuf) -> rusqlite::Result<Self> {
        let Names { interfaces, peers, words: _ } = Names::read(conn)?;
        let mut query = conn.prepare("SELECT revision FROM policy")?;
        let policies = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(Self {
            store,
            policies,
            interfaces: interfaces.into_iter().map(|(id, name)| (name, id)).collect(),
            peers: peers.into_iter().map(|(id, identity)| (identity, id)).collect(),
        })
    }

    /// What a record points to; made where the segment does not have it.
    pub(super) fn ids<'r>(
        &mut self,
        conn: &Connection,
        record: &'r Record,
        met: &mut Met<'r>,
    ) -> rusqlite::Result<Ids> {
        let mut peer = |identity: &'r Option<Arc<Identity>>| match identity {
            Some(identity) => self.met_peer(conn, identity, met).map(Some),
            None => Ok(None),
        };
        let (peer, remote_peer) = (peer(&record.peer)?, peer(&record.remote_peer)?);
        self.policy(conn, record.policy_revision)?;
        let interface = match met.interface {
            Some((name, id)) if Arc::ptr_eq(name, &record.interface) => id,
            _ => self.interface(conn, &record.interface)?,
        };
        met.interface = Some((&record.interface, interface));
        Ok(Ids { interface, peer, remote_peer })
    }

    fn met_peer<'r>(
        &mut self,
        conn: &Connection,
        identity: &'r Arc<Identity>,
        met: &mut Met<'r>,
    ) -> rusqlite::Result<i64> {
        let place = Arc::as_ptr(identity);
        if let Some((_, id)) = met.peers.get(&place) {
            return Ok(*id);
        }
        let id = self.peer(conn, identity)?;
        met.peers.insert(place, (identity, id));
        Ok(id)
    }

    /// Puts the text of a policy beside the records that name it.
    fn policy(&mut self, conn: &Connection, revision: u32) -> rusqlite::Result<()> {
        if revision == 0 || !self.policies.insert(revision) {
            return Ok(());
        }
        match fs::read_to_string(self.store.join("policy").join(policy_file(revision))) {
            Ok(text) => conn
                .prepare_cached("INSERT INTO policy VALUES (?, ?)")?
                .execute(params![revision, text])
                .map(drop),
            Err(error) => {
                tracing::warn!(%error, revision, "the text of a policy is missing in a segment");
                Ok(())
            }
        }
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

/// The schema's version; 0: the file is still empty.
pub(super) fn version_of(path: &Path) -> Result<usize, OpenError> {
    as_it_is(path, |_, version| Ok(version))
}

/// Undoes what a crash left half done in a file that had no log at that time, as when it is begun or
/// closed: who only reads cannot. What does not let itself be undone is told by who opens it.
pub(super) fn roll_back(path: &Path) {
    if !aside::with(path, "-journal").exists() {
        return;
    }
    let undo = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    match undo() {
        Ok(()) => tracing::info!(path = %path.display(), "undid what a crash left half done"),
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "what a crash left is not undone");
        }
    }
}

/// [`last_record_id`] of a segment that is left as it is.
pub(super) fn last_record_id_of(path: &Path) -> Result<u64, OpenError> {
    as_it_is(path, |conn, _| last_record_id(conn))
}

/// What a segment that is left as it is would hand on; `None`: it is of an older version.
pub(super) fn carried_of(place: &Place, day: &str) -> Result<Option<Carried>, OpenError> {
    let (found, carried) = as_it_is(&place.path(day), |conn, version| {
        let gateway: String = conn.query_row("SELECT gateway FROM meta", [], |row| row.get(0))?;
        let is_new = version == schema::MIGRATIONS.len();
        Ok((gateway, is_new.then(|| carried(conn)).transpose()?))
    })?;
    if found == place.gateway { Ok(carried) } else { Err(OpenError::OtherGateway { found }) }
}

/// Reads a file and leaves it as it is.
pub(super) fn as_it_is<T>(
    path: &Path,
    read: impl FnOnce(&Connection, usize) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let open = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let version = schema::check(&conn)?;
        Ok(read(&conn, version)?)
    };
    open().map_err(|source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) })
}

/// The highest record id so far; 0: there is no record, and nobody knows of one before.
pub(super) fn last_record_id(conn: &Connection) -> rusqlite::Result<u64> {
    match record_ids(conn)? {
        Some((_, last)) => Ok(last),
        None => records_before(conn),
    }
}

/// The lowest and the highest id of the segment's records, rows and chunks.
pub(super) fn record_ids(conn: &Connection) -> rusqlite::Result<Option<(u64, u64)>> {
    let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Each alone, SQLite finds at the end of a table; chunks have the lower numbers.
    let sql = if (version as usize) < chunks::SINCE_VERSION {
        "SELECT (SELECT min(record_id) FROM record), (SELECT max(record_id) FROM record)"
    } else {
        "SELECT \
         coalesce((SELECT min(first_record_id) FROM chunk), (SELECT min(record_id) FROM record)), \
         coalesce((SELECT max(record_id) FROM record), \
         (SELECT last_record_id FROM chunk ORDER BY first_record_id DESC LIMIT 1))"
    };
    conn.query_row(sql, [], |row| {
        let (first, last): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok(first.map(i64::cast_unsigned).zip(last.map(i64::cast_unsigned)))
    })
}

/// The highest record id before the segment; 0: nobody knows of one.
pub(super) fn records_before(conn: &Connection) -> rusqlite::Result<u64> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < 4 {
        return Ok(0);
    }
    let sql = "SELECT coalesce(records_before, 0) FROM meta";
    conn.query_row(sql, [], |row| row.get(0)).map(i64::cast_unsigned)
}

fn set_synchronous(conn: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    let word = match synchronous {
        Synchronous::Normal => "normal",
        Synchronous::Full => "full",
    };
    conn.pragma_update(None, "synchronous", word)
}

fn prepare(
    place: &Place,
    path: &Path,
    day: &str,
    carried: Option<&Carried>,
) -> Result<Segment, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    aside::clear_orphans(&place.segments, day).map_err(io)?;
    // Made here, so that its mode, which SQLite gives to the log too, depends on no umask.
    let mut file = OpenOptions::new();
    file.create(true).truncate(false).write(true).mode(0o640);
    let file = file.open(path).and_then(|file| file.metadata()).map_err(io)?;
    let mut conn = Connection::open(path)?;
    let found = schema::check(&conn)?;
    fs::set_permissions(path, Permissions::from_mode(0o640)).map_err(io)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    set_synchronous(&conn, place.synchronous)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // What records point to is made before them; `verify` looks after it.
    conn.pragma_update(None, "foreign_keys", false)?;
    let mut interned = Interned::default();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&tx, found)?;
    let owner: Option<String> =
        tx.query_row("SELECT gateway FROM meta", [], |row| row.get(0)).optional()?;
    match owner {
        Some(found) if found != place.gateway => return Err(OpenError::OtherGateway { found }),
        Some(_) => {
            tx.execute("UPDATE meta SET sealed = NULL", [])?;
            interned = Interned::read(&tx, place.store.clone())?;
        }
        None => {
            let sql = "INSERT INTO meta (only, gateway, day) VALUES (1, ?, ?)";
            tx.execute(sql, params![place.gateway, day])?;
            interned.store = place.store.clone();
        }
    }
    if let Some(carried) = carried {
        tx.execute("DELETE FROM open_flow", [])?;
        let mut writing = row::Writing::new(&tx)?;
        let mut met = Met::default();
        for record in &carried.ledger {
            writing.open(record, interned.ids(&tx, record, &mut met)?)?;
        }
        drop(writing);
        carried.state.write(&tx)?;
        carried.gaps.write(&tx, &mut interned)?;
        carried.peers.write(&tx)?;
        let last = carried.last_record_id.cast_signed();
        tx.execute("UPDATE meta SET records_before = ?", [last])?;
    }
    tx.commit()?;
    Ok(Segment {
        day: day.to_owned(),
        path: path.to_owned(),
        file: (file.dev(), file.ino()),
        conn,
        interned,
    })
}
