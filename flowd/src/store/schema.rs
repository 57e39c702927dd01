//! The schema of a segment, as a list that only grows.

use std::collections::BTreeSet;

use rusqlite::{Connection, Transaction};

use super::OpenError;

/// Marks a file as a segment of flowd ("flwd").
pub(super) const APPLICATION_ID: i64 = 0x666c_7764;

/// Entry `n` takes a file from version `n` to `n + 1`. Append only: never edit a released entry.
pub(super) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE meta (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    gateway  TEXT NOT NULL,
    day      TEXT NOT NULL CHECK (length(day) = 10) -- UTC, YYYY-MM-DD
) STRICT;
CREATE TABLE interface (
    interface_id INTEGER PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE
) STRICT;
-- What a peer was called and where it was: a row for each state that a record saw.
CREATE TABLE peer (
    peer_id    INTEGER PRIMARY KEY,
    public_key TEXT NOT NULL, -- base64
    name       TEXT NOT NULL,
    user       TEXT,
    device     TEXT,
    groups     TEXT NOT NULL CHECK (json_valid(groups)), -- array of strings
    endpoint   TEXT -- ip:port
) STRICT;
CREATE TABLE record (
    record_id       INTEGER PRIMARY KEY CHECK (record_id > 0),
    interface_id    INTEGER NOT NULL REFERENCES interface,
    protocol        INTEGER NOT NULL CHECK (protocol BETWEEN 0 AND 255),
    peer_addr       BLOB NOT NULL CHECK (length(peer_addr) = 16), -- IPv4 is v4-mapped
    remote_addr     BLOB NOT NULL CHECK (length(remote_addr) = 16),
    peer_port       INTEGER NOT NULL CHECK (peer_port BETWEEN 0 AND 65535),
    remote_port     INTEGER NOT NULL CHECK (remote_port BETWEEN 0 AND 65535),
    overflow        INTEGER NOT NULL CHECK (overflow IN (0, 1)),
    first_seen      INTEGER NOT NULL, -- Unix milliseconds, as are the next three
    last_seen       INTEGER NOT NULL,
    window_start    INTEGER NOT NULL,
    window_end      INTEGER NOT NULL CHECK (window_start <= window_end),
    initiator       INTEGER NOT NULL,
    icmp            INTEGER, -- type << 8 | code
    peer_id         INTEGER REFERENCES peer,
    remote_peer_id  INTEGER REFERENCES peer,
    verdict         INTEGER NOT NULL,
    enforced        INTEGER NOT NULL CHECK (enforced IN (0, 1)),
    rule            TEXT,
    policy_revision INTEGER NOT NULL,
    tcp_flags       INTEGER NOT NULL, -- rx << 8 | tx
    rx_packets_total INTEGER NOT NULL CHECK (rx_packets_total >= rx_packets), -- since first_seen
    rx_bytes_total   INTEGER NOT NULL CHECK (rx_bytes_total >= rx_bytes),
    tx_packets_total INTEGER NOT NULL CHECK (tx_packets_total >= tx_packets),
    tx_bytes_total   INTEGER NOT NULL CHECK (tx_bytes_total >= tx_bytes),
    rx_packets      INTEGER NOT NULL CHECK (rx_packets >= 0), -- in the window
    rx_bytes        INTEGER NOT NULL CHECK (rx_bytes >= 0), -- layer 3, IP header included
    tx_packets      INTEGER NOT NULL CHECK (tx_packets >= 0),
    tx_bytes        INTEGER NOT NULL CHECK (tx_bytes >= 0),
    end_reason      INTEGER -- NULL while the flow lives
) STRICT;
CREATE INDEX record_by_first_seen ON record (first_seen);
-- The ledger: the last record of every flow that has one and lives.
CREATE TABLE open_flow (
    first_seen   INTEGER NOT NULL, -- Unix milliseconds
    interface_id INTEGER NOT NULL REFERENCES interface,
    protocol     INTEGER NOT NULL,
    peer_addr    BLOB NOT NULL CHECK (length(peer_addr) = 16),
    remote_addr  BLOB NOT NULL CHECK (length(remote_addr) = 16),
    peer_port    INTEGER NOT NULL,
    remote_port  INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL, -- Unix milliseconds
    window_end   INTEGER NOT NULL, -- Unix milliseconds
    initiator    INTEGER NOT NULL,
    icmp         INTEGER,
    peer_id      INTEGER REFERENCES peer,
    remote_peer_id INTEGER REFERENCES peer,
    verdict      INTEGER NOT NULL,
    enforced     INTEGER NOT NULL,
    rule         TEXT,
    policy_revision INTEGER NOT NULL,
    tcp_flags    INTEGER NOT NULL,
    rx_packets_total INTEGER NOT NULL,
    rx_bytes_total   INTEGER NOT NULL,
    tx_packets_total INTEGER NOT NULL,
    tx_bytes_total   INTEGER NOT NULL,
    PRIMARY KEY (first_seen, interface_id, protocol, peer_addr, remote_addr, peer_port, remote_port)
) STRICT, WITHOUT ROWID;
",
    "
-- Names of resources, as the policy had them at the time.
ALTER TABLE record ADD COLUMN peer_resource TEXT;
ALTER TABLE record ADD COLUMN remote_resource TEXT;
ALTER TABLE open_flow ADD COLUMN peer_resource TEXT;
ALTER TABLE open_flow ADD COLUMN remote_resource TEXT;
",
    "
-- Which entry of the kernel's table a row of the ledger speaks of; NULL: one that is gone.
ALTER TABLE open_flow ADD COLUMN overflow INTEGER NOT NULL DEFAULT 0;
ALTER TABLE open_flow ADD COLUMN ifindex INTEGER;
ALTER TABLE open_flow ADD COLUMN generation INTEGER;
ALTER TABLE open_flow ADD COLUMN started_ns INTEGER; -- CLOCK_MONOTONIC
-- What else a daemon must know of the one before it. In the newest segment only.
CREATE TABLE state (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    boot_id TEXT, -- /proc/sys/kernel/random/boot_id of the kernel that the ledger speaks of
    tables  TEXT, -- those of the kernel's tables that it speaks of
    alive   INTEGER, -- Unix milliseconds of the last drain
    clean   INTEGER NOT NULL, -- whether it recorded everything and the daemon then stopped
    ended   BLOB -- entries that may still be in the table, and whose last records are in the store
) STRICT;
INSERT INTO state VALUES (1, NULL, NULL, NULL, 0, NULL);
-- What flows did that have left the kernel's tables since these were made, by the numbers there.
CREATE TABLE finished (
    ifindex    INTEGER NOT NULL,
    peer       INTEGER NOT NULL,
    rx_packets INTEGER NOT NULL,
    rx_bytes   INTEGER NOT NULL,
    tx_packets INTEGER NOT NULL,
    tx_bytes   INTEGER NOT NULL,
    PRIMARY KEY (ifindex, peer)
) STRICT, WITHOUT ROWID;
-- The highest gap_id so far, in whichever segment.
ALTER TABLE state ADD COLUMN last_gap_id INTEGER NOT NULL DEFAULT 0;
-- What may have gone unrecorded. A gap that lasts goes on in the next segment under its number: the
-- newest segment that has a number is right about it.
CREATE TABLE gap (
    gap_id       INTEGER PRIMARY KEY CHECK (gap_id > 0),
    stage        INTEGER NOT NULL,
    interface_id INTEGER REFERENCES interface, -- NULL: all
    peer_id      INTEGER REFERENCES peer, -- NULL: all
    opened       INTEGER NOT NULL, -- Unix milliseconds
    closed       INTEGER CHECK (closed >= opened), -- Unix milliseconds; NULL while it lasts
    packets      INTEGER CHECK (packets >= 0), -- missing at most; NULL: nobody knows
    bytes        INTEGER CHECK (bytes >= 0), -- missing at most; NULL: nobody knows
    detail       TEXT NOT NULL -- one line
) STRICT;
-- What WireGuard counted for a peer in one window, and what of it the flows explain.
CREATE TABLE coverage (
    window_start INTEGER NOT NULL, -- Unix milliseconds
    window_end   INTEGER NOT NULL, -- Unix milliseconds
    interface_id INTEGER NOT NULL REFERENCES interface,
    peer_id      INTEGER NOT NULL REFERENCES peer,
    epoch        INTEGER NOT NULL, -- how often WireGuard's counters had started from zero
    rx_packets   INTEGER NOT NULL CHECK (rx_packets >= 0), -- of flows, full table included
    rx_bytes     INTEGER NOT NULL CHECK (rx_bytes >= 0), -- layer 3, IP header included
    tx_packets   INTEGER NOT NULL CHECK (tx_packets >= 0), -- without what a policy dropped
    tx_bytes     INTEGER NOT NULL CHECK (tx_bytes >= 0),
    wireguard_rx_bytes INTEGER NOT NULL CHECK (wireguard_rx_bytes >= 0), -- outer bytes
    wireguard_tx_bytes INTEGER NOT NULL CHECK (wireguard_tx_bytes >= 0),
    rx_off       INTEGER NOT NULL, -- bytes WireGuard has more (less: negative) than the flows explain
    tx_off       INTEGER NOT NULL
) STRICT;
CREATE TABLE peer_event (
    at           INTEGER NOT NULL, -- Unix milliseconds
    kind         INTEGER NOT NULL,
    interface_id INTEGER NOT NULL REFERENCES interface,
    peer_id      INTEGER NOT NULL REFERENCES peer,
    epoch        INTEGER NOT NULL,
    endpoint     TEXT, -- ip:port, from then on
    was          TEXT -- ip:port, until then, of a peer that roams
) STRICT;
-- What a daemon must know of each peer's session. In the newest segment only.
CREATE TABLE peer_state (
    interface  TEXT NOT NULL,
    public_key TEXT NOT NULL, -- base64
    epoch      INTEGER NOT NULL,
    rx_bytes   INTEGER NOT NULL, -- WireGuard's counters at the last look
    tx_bytes   INTEGER NOT NULL,
    handshake  INTEGER, -- Unix milliseconds, as are the next two
    connected  INTEGER, -- since when; NULL: it is not
    gone       INTEGER, -- when it was removed; NULL: it was not
    endpoint   TEXT, -- ip:port
    PRIMARY KEY (interface, public_key)
) STRICT, WITHOUT ROWID;
",
    "
-- When the segment was sealed, Unix milliseconds; NULL: it may still be written.
ALTER TABLE meta ADD COLUMN sealed INTEGER;
-- The highest record id that was given out before the segment; NULL: an older flowd made it.
ALTER TABLE meta ADD COLUMN records_before INTEGER;
-- What each state of each peer did on the day: the sums of its records.
CREATE TABLE total (
    interface_id INTEGER NOT NULL REFERENCES interface,
    peer_id      INTEGER NOT NULL, -- 0: of no known peer
    verdict      INTEGER NOT NULL,
    records      INTEGER NOT NULL,
    flows        INTEGER NOT NULL, -- that have their first record here; overflow is no flow
    rx_packets   INTEGER NOT NULL,
    rx_bytes     INTEGER NOT NULL,
    tx_packets   INTEGER NOT NULL,
    tx_bytes     INTEGER NOT NULL,
    PRIMARY KEY (interface_id, peer_id, verdict)
) STRICT, WITHOUT ROWID;
INSERT INTO total
SELECT interface_id, coalesce(peer_id, 0), verdict, count(*), sum(overflow = 0
       AND rx_packets = rx_packets_total AND rx_bytes = rx_bytes_total
       AND tx_packets = tx_packets_total AND tx_bytes = tx_bytes_total),
       sum(rx_packets), sum(rx_bytes), sum(tx_packets), sum(tx_bytes)
FROM record GROUP BY 1, 2, 3;
-- The texts of the policies that the records name; revision 0 is that of no rules.
CREATE TABLE policy (
    revision INTEGER PRIMARY KEY,
    text     TEXT NOT NULL
) STRICT;
",
    "
-- Records that are rows no more; those that still are have higher numbers. See docs/store.md.
CREATE TABLE chunk (
    first_record_id INTEGER PRIMARY KEY CHECK (first_record_id > 0),
    last_record_id  INTEGER NOT NULL CHECK (last_record_id >= first_record_id), -- none is left out
    header          BLOB NOT NULL
) STRICT;
CREATE TABLE chunk_column (
    place INTEGER PRIMARY KEY, -- 32 * first_record_id + number of the column
    body  BLOB NOT NULL
) STRICT;
-- Rules and resources, which chunks name by number.
CREATE TABLE word (
    word_id INTEGER PRIMARY KEY CHECK (word_id > 0),
    text    TEXT NOT NULL UNIQUE
) STRICT;
",
    "
-- What many chunks that follow each other add up to. See docs/store.md.
CREATE TABLE digest (
    first_record_id  INTEGER PRIMARY KEY CHECK (first_record_id > 0),
    last_record_id   INTEGER NOT NULL CHECK (last_record_id >= first_record_id),
    window_start     INTEGER NOT NULL, -- the least one, Unix milliseconds
    window_end_first INTEGER NOT NULL, -- Unix milliseconds
    window_end_last  INTEGER NOT NULL, -- Unix milliseconds
    totals           BLOB NOT NULL, -- by verdict
    peers            BLOB, -- by inside end; NULL: too many
    remotes          BLOB, -- by other end
    ports            BLOB, -- by protocol and destination port
    pairs            BLOB -- by both peers, of records that have a peer at the other end
) STRICT;
-- Readers keep the rows that there are.
DROP INDEX record_by_first_seen;
",
];

/// The version of a file; refuses files of others and newer ones without touching them.
pub(super) fn check(conn: &Connection) -> Result<usize, OpenError> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let has_objects = || conn.prepare("SELECT 1 FROM sqlite_schema")?.exists([]);
    let empty = version == 0 && application == 0 && !has_objects()?;
    if !empty && application != APPLICATION_ID {
        return Err(OpenError::Foreign);
    }
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(found) if found <= known => Ok(found),
        _ => Err(OpenError::TooNew { found: version, known }),
    }
}

/// Whether a file has what flowd makes in one of its version, and nothing else: no view in the place of
/// a table, which might say something else each time, and no trigger.
pub(super) fn is_own(conn: &Connection, version: usize) -> rusqlite::Result<bool> {
    let own = Connection::open_in_memory()?;
    for sql in &MIGRATIONS[..version.min(MIGRATIONS.len())] {
        own.execute_batch(sql)?;
    }
    // What SQLite knows of its own tables is no part of it.
    let objects = |conn: &Connection| -> rusqlite::Result<BTreeSet<(String, String, String)>> {
        let sql = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE \
                   '\\'";
        let mut query = conn.prepare(sql)?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    };
    Ok(objects(&own)? == objects(conn)?)
}

/// Brings the schema up to date inside the caller's transaction.
pub(super) fn migrate(tx: &Transaction<'_>, found: usize) -> Result<(), OpenError> {
    for sql in &MIGRATIONS[found..] {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{APPLICATION_ID, MIGRATIONS, check, migrate};
    use crate::store::OpenError;

    fn upgrade(conn: &mut Connection) {
        let found = check(conn).unwrap();
        let tx = conn.transaction().unwrap();
        migrate(&tx, found).unwrap();
        tx.commit().unwrap();
    }

    /// A file as the flowd of version `version` left it.
    fn of_version(version: usize) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        for sql in &MIGRATIONS[..version] {
            conn.execute_batch(sql).unwrap();
        }
        if version > 0 {
            conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            conn.pragma_update(None, "user_version", version as i64).unwrap();
        }
        conn
    }

    fn schema(conn: &Connection) -> Vec<(String, Option<String>)> {
        let mut query = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_version_upgrades_to_the_same_schema_and_twice_changes_nothing() {
        let mut newest = of_version(MIGRATIONS.len());
        let expected = schema(&newest);
        upgrade(&mut newest);
        assert_eq!(schema(&newest), expected, "nothing was left to do");
        for version in 0..=MIGRATIONS.len() {
            let mut conn = of_version(version);
            upgrade(&mut conn);
            assert_eq!(schema(&conn), expected, "from version {version}");
            assert_eq!(check(&conn).unwrap(), MIGRATIONS.len());
        }
    }

    #[test]
    fn the_file_of_another_program_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE theirs (id INTEGER)").unwrap();
        assert!(matches!(check(&conn), Err(OpenError::Foreign)));
        let conn = of_version(MIGRATIONS.len());
        conn.pragma_update(None, "user_version", MIGRATIONS.len() as i64 + 1).unwrap();
        assert!(matches!(check(&conn), Err(OpenError::TooNew { .. })));
    }
}
