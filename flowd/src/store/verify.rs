//! Whether segments are whole. Works on files, with or without a daemon.
//!
//! - alone: SQLite's own check, numbers without a gap, the windows of a flow without a hole and its
//!   totals as the running sums, the ledger as the last records, the day's sums as the records'
//! - one after another: numbers go on, and so does every open flow

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::{OpenError, aside, failure, salvage, schema, totals, writer};

/// Lines about one kind of thing that is wrong.
const SHOWN: usize = 3;

/// What names a flow in one segment.
const FLOW: &str = "interface_id, protocol, peer_addr, remote_addr, peer_port, remote_port, \
    first_seen, overflow";

/// One segment, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Where it is.
    pub file: PathBuf,
    /// UTC, YYYY-MM-DD; empty: it cannot be read.
    pub day: String,
    /// In it.
    pub records: u64,
    /// First and last.
    pub record_ids: Option<(u64, u64)>,
    /// Whether its day is over and it was sealed.
    pub is_sealed: bool,
    /// A line each; empty: it is whole.
    pub problems: Vec<String>,
}

/// Checks every segment of a store, and that they follow each other.
pub fn verify_store(store: &Path) -> Result<Vec<Verified>, OpenError> {
    let segments = store.join("segments");
    let io = |source| OpenError::Io { path: segments.clone(), source };
    let days = writer::list(&segments).map_err(io)?;
    let mut removed = BTreeMap::new();
    match totals::days(store) {
        Ok(gone) => removed.extend(gone.into_iter().map(|day| (day.day, day.record_ids))),
        Err(error) => {
            let file = store.join("totals.sqlite");
            let problems = vec![error.to_string()];
            return Ok(vec![Verified { file, problems, ..Verified::default() }]);
        }
    }
    let mut found: Vec<Verified> = Vec::new();
    for day in &days {
        let path = segments.join(format!("{day}.sqlite"));
        let Some(mut one) = verify_file(&path) else { continue };
        let before = found.last().map(|before| (before.day.clone(), before.record_ids));
        let gone = removed.range(..day.clone()).next_back();
        let last = before.iter().map(|(_, ids)| *ids).chain(gone.map(|(_, ids)| *ids)).flatten();
        follow(&mut one, last.map(|(_, last)| last).max());
        if let Some(before) = found.last()
            && before.problems.is_empty()
            && one.problems.is_empty()
        {
            one.problems.extend(handed_on(&before.file, &path));
        }
        found.push(one);
    }
    for (day, at_ms) in aside::list(&segments).map_err(io)? {
        let file = segments.join(format!("{day}.corrupt-{at_ms}"));
        let problems = vec![
            "it was set aside, and its records are in no answer: restore the day from a backup, \
             and move this file away"
                .to_owned(),
        ];
        found.push(Verified { file, day, problems, ..Verified::default() });
    }
    Ok(found)
}

/// Checks some segments, and those of following days one after another.
pub fn verify_files(files: &[PathBuf]) -> Vec<Verified> {
    let empty = |file: &PathBuf| Verified {
        file: file.clone(),
        problems: vec!["it is empty: restore it from a backup".to_owned()],
        ..Verified::default()
    };
    let mut found: Vec<Verified> =
        files.iter().map(|file| verify_file(file).unwrap_or_else(|| empty(file))).collect();
    found.sort_by(|a, b| a.day.cmp(&b.day));
    for index in 1..found.len() {
        let (before, after) = found.split_at_mut(index);
        let (before, one) = (&before[index - 1], &mut after[0]);
        let next = before.day.parse::<jiff::civil::Date>().and_then(|day| day.tomorrow());
        if next.is_ok_and(|next| next.to_string() == one.day) && before.problems.is_empty() {
            follow(one, before.record_ids.map(|(_, last)| last));
            one.problems.extend(handed_on(&before.file, &one.file));
        }
    }
    found
}

/// The numbers of records go on where those of the segment before end.
fn follow(one: &mut Verified, last: Option<u64>) {
    let (Some((first, _)), Some(last)) = (one.record_ids, last) else { return };
    if first != last + 1 {
        one.problems.push(format!(
            "it begins with record {first} although the segment before ends with {last}: see \
             `flowctl gaps`, and look for a segment that was moved away"
        ));
    }
}

/// `None`: it is empty still, because it is only just being made.
fn verify_file(path: &Path) -> Option<Verified> {
    let mut one = Verified { file: path.to_owned(), ..Verified::default() };
    if let Err(error) = std::fs::metadata(path) {
        one.problems.push(format!("it cannot be read: {error}"));
        return Some(one);
    }
    match look(path, &mut one) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(OpenError::Sqlite(error)) => one.problems.push(failure::with_remedy(&error)),
        Err(error) => one.problems.push(error.to_string()),
    }
    Some(one)
}

fn look(path: &Path, one: &mut Verified) -> Result<bool, OpenError> {
    let (conn, version) = open(path)?;
    if version == 0 {
        return Ok(false);
    }
    // Everything below speaks of one instant.
    let conn = conn.unchecked_transaction()?;
    let mut query = conn.prepare("PRAGMA integrity_check(3)")?;
    let said: Vec<String> =
        query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if said != ["ok"] {
        let said = said.join("; ");
        one.problems.push(format!("it is damaged ({said}): restore it from a backup"));
        return Ok(true);
    }
    let sealed = if version < 4 { "NULL" } else { "sealed" };
    (one.day, one.is_sealed) =
        conn.query_row(&format!("SELECT day, {sealed} IS NOT NULL FROM meta"), [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    if name.parse::<jiff::civil::Date>().is_ok() && name != one.day {
        one.problems.push(format!("it is the segment of {}: rename it", one.day));
    }
    let (records, first, last): (u64, Option<i64>, Option<i64>) =
        conn.query_row("SELECT count(*), min(record_id), max(record_id) FROM record", [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?))
        })?;
    one.records = records;
    one.record_ids = first.map(i64::cast_unsigned).zip(last.map(i64::cast_unsigned));
    if let Some((first, last)) = one.record_ids
        && last - first + 1 != records
    {
        let missing = last - first + 1 - records;
        one.problems.push(format!(
            "{missing} of the records {first} to {last} are missing: restore it from a backup"
        ));
    }
    for (what, sql) in checks(version) {
        let wrong = rows(&conn, &sql)?;
        one.problems.extend(told(what, &wrong));
    }
    Ok(true)
}

/// What must find nothing: what it means when it does, and the query, whose rows are shown.
fn checks(version: usize) -> Vec<(&'static str, String)> {
    let mut checks = vec![
        (
            "does not go on where the record before of its flow ends",
            format!(
                "SELECT 'record ' || record_id FROM (SELECT record_id, window_start, \
                 rx_packets_total - rx_packets AS rxp, rx_bytes_total - rx_bytes AS rxb, \
                 tx_packets_total - tx_packets AS txp, tx_bytes_total - tx_bytes AS txb, \
                 lag(window_end) OVER flow AS before, lag(end_reason) OVER flow AS ended, \
                 lag(rx_packets_total) OVER flow AS rxp_before, \
                 lag(rx_bytes_total) OVER flow AS rxb_before, \
                 lag(tx_packets_total) OVER flow AS txp_before, \
                 lag(tx_bytes_total) OVER flow AS txb_before \
                 FROM record WINDOW flow AS (PARTITION BY {FLOW} ORDER BY record_id)) \
                 WHERE before IS NOT NULL AND ended IS NULL AND (window_start <> before \
                 OR rxp <> rxp_before OR rxb <> rxb_before \
                 OR txp <> txp_before OR txb <> txb_before)"
            ),
        ),
        (
            "is the last one of an open flow that the ledger does not have so",
            format!(
                "SELECT 'record ' || record_id FROM (SELECT *, row_number() OVER \
                 (PARTITION BY {FLOW} ORDER BY record_id DESC) AS place FROM record) AS r \
                 WHERE place = 1 AND end_reason IS NULL AND NOT EXISTS (SELECT 1 FROM open_flow o \
                 WHERE {} AND o.rx_packets_total = r.rx_packets_total \
                 AND o.rx_bytes_total = r.rx_bytes_total \
                 AND o.tx_packets_total = r.tx_packets_total \
                 AND o.tx_bytes_total = r.tx_bytes_total)",
                same_flow("o.interface_id = r.interface_id")
            ),
        ),
    ];
    if version >= 4 {
        let kept = "SELECT interface_id, peer_id, verdict, records, flows, rx_packets, rx_bytes, \
                    tx_packets, tx_bytes FROM total";
        let counted = "SELECT interface_id, coalesce(peer_id, 0), verdict, count(*), \
             sum(overflow = 0 AND rx_packets = rx_packets_total AND rx_bytes = rx_bytes_total \
             AND tx_packets = tx_packets_total AND tx_bytes = tx_bytes_total), sum(rx_packets), \
             sum(rx_bytes), sum(tx_packets), sum(tx_bytes) FROM record GROUP BY 1, 2, 3";
        checks.push((
            "has sums that are not those of its records",
            format!(
                "SELECT DISTINCT 'peer ' || peer_id FROM (SELECT * FROM ({kept} EXCEPT {counted}) \
                 UNION ALL SELECT * FROM ({counted} EXCEPT {kept}))"
            ),
        ));
    }
    checks
}

/// The same flow in `o`, a ledger, and `r`, records.
fn same_flow(interface: &str) -> String {
    format!(
        "{interface} AND o.first_seen = r.first_seen AND o.protocol = r.protocol \
         AND o.peer_addr = r.peer_addr AND o.remote_addr = r.remote_addr \
         AND o.peer_port = r.peer_port AND o.remote_port = r.remote_port"
    )
}

/// Every flow that goes on was handed on by the segment before, as it was.
fn handed_on(before: &Path, path: &Path) -> Vec<String> {
    let look = || -> Result<Vec<String>, OpenError> {
        let (conn, _) = open(path)?;
        conn.execute("ATTACH ? AS older", [before.to_string_lossy()])?;
        let sql = format!(
            "SELECT 'record ' || record_id FROM (SELECT record.*, name, row_number() OVER \
             (PARTITION BY {FLOW} ORDER BY record_id) AS place \
             FROM main.record JOIN main.interface USING (interface_id)) AS r \
             WHERE place = 1 AND (rx_packets <> rx_packets_total OR tx_packets <> tx_packets_total \
             OR rx_bytes <> rx_bytes_total OR tx_bytes <> tx_bytes_total) \
             AND NOT EXISTS (SELECT 1 FROM older.open_flow o JOIN older.interface i \
             ON i.interface_id = o.interface_id WHERE {} AND o.window_end = r.window_start \
             AND o.rx_packets_total = r.rx_packets_total - r.rx_packets \
             AND o.rx_bytes_total = r.rx_bytes_total - r.rx_bytes \
             AND o.tx_packets_total = r.tx_packets_total - r.tx_packets \
             AND o.tx_bytes_total = r.tx_bytes_total - r.tx_bytes)",
            same_flow("i.name = r.name")
        );
        Ok(rows(&conn, &sql)?)
    };
    match look() {
        Ok(wrong) => told("goes on from something else than the segment before has", &wrong),
        Err(error) => vec![error.to_string()],
    }
}

fn rows(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = conn.prepare(sql)?;
    query.query_map([], |row: &Row<'_>| row.get(0))?.collect()
}

fn told(what: &str, wrong: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = wrong
        .iter()
        .take(SHOWN)
        .map(|which| format!("{which} {what}: restore it from a backup"))
        .collect();
    if wrong.len() > SHOWN {
        lines.push(format!("{} more like that", wrong.len() - SHOWN));
    }
    lines
}

/// A copy may lie where nothing can be written, which SQLite needs for a file with a log.
fn open(path: &Path) -> Result<(Connection, usize), OpenError> {
    if let Err(source) = std::fs::File::open(path) {
        return Err(OpenError::Io { path: path.to_owned(), source });
    }
    let usual = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let version = schema::check(&conn)?;
        Ok((conn, version))
    };
    match usual() {
        Err(OpenError::Sqlite(error))
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ) =>
        {
            let conn = salvage::open(path)?;
            let version = schema::check(&conn)?;
            Ok((conn, version))
        }
        opened => opened,
    }
}
