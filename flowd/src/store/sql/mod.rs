//! SQL over the whole history, read-only: one statement on a connection of its own.
//!
//! - `records` is a virtual table over [`Reader::records`]: a statement does not see in which form,
//!   or in which segment, a record is stored
//! - `gaps` and `peers` are small: they are filled from the daemon when a statement names them
//! - a statement sees the records up to one watermark, however long it runs

mod cell;
mod functions;
mod guard;
mod plan;
mod records;
mod tables;

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::{
    Batch, Connection, Error, ErrorCode, Rows, Statement, fallible_iterator::FallibleIterator as _,
    functions::FunctionFlags, params_from_iter,
};

pub use self::{
    cell::Cell,
    guard::MAX_BYTES,
    tables::{ColumnInfo, Table, tables},
};
use self::{
    guard::Access,
    records::Source,
    tables::{Column, GAP_COLUMNS, GAPS, PEER_COLUMNS, PEERS, RECORDS},
};
use super::{Leash, ReadError, Reader, failure};
use crate::{flows::Gap, when, wire::Peer};

const ONLY_READS: &str = "a statement only reads, and only records, gaps and peers: one SELECT, \
    VALUES or EXPLAIN";

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// One statement.
    pub text: String,
    /// Id of the gateway.
    pub gateway: Arc<str>,
    /// The last record that there is.
    pub watermark: u64,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What the daemon knows besides records. The error is one line.
pub trait Beside {
    /// The gaps of all time.
    fn gaps(&self) -> Result<Vec<Gap>, String>;
    /// The peers as they are.
    fn peers(&self) -> Result<Arc<Vec<Peer>>, String>;
}

/// Takes an answer.
pub trait Answer {
    /// The names of the columns, before any row; each is there once.
    fn columns(&mut self, names: Vec<String>);
    /// A row, until there are enough.
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()>;
}

/// Answers a question, as long as the leash lasts.
///
/// Returns how many records were read for it.
pub fn ask(
    reader: &Reader,
    leash: &Leash,
    question: &Question,
    beside: &dyn Beside,
    answer: &mut dyn Answer,
) -> Result<u64, ReadError> {
    ask_within(guard::MEMORY_MIB, reader, leash, question, beside, answer)
}

fn ask_within(
    memory_mib: i64,
    reader: &Reader,
    leash: &Leash,
    question: &Question,
    beside: &dyn Beside,
    answer: &mut dyn Answer,
) -> Result<u64, ReadError> {
    let source = Arc::new(Source {
        reader: reader.clone().on(leash.clone()),
        gateway: question.gateway.clone(),
        watermark: question.watermark,
        failed: Mutex::default(),
        read: AtomicU64::new(0),
    });
    let mut conn = open(question, source.clone()).map_err(refused)?;
    let (access, stopped) = guard::restrict(&mut conn, leash, memory_mib).map_err(refused)?;
    match run(&conn, &question.text, &access, beside, answer) {
        Ok(()) => Ok(source.read.load(Ordering::Relaxed)),
        // What a table or the guard said is the reason of what SQLite says.
        Err(error) => Err(source.failure().or_else(|| stopped.take()).unwrap_or(error)),
    }
}

/// A connection with the tables and functions.
fn open(question: &Question, source: Arc<Source>) -> rusqlite::Result<Connection> {
    let conn = Connection::open_in_memory()?;
    conn.create_module(RECORDS.name, &records::MODULE, Some(source))?;
    conn.execute_batch(&tables::definition(GAPS.name, GAP_COLUMNS))?;
    conn.execute_batch(&tables::definition(PEERS.name, PEER_COLUMNS))?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let now_ms = question.now_ms;
    conn.create_scalar_function("instant", 1, pure, move |context| {
        let text: String = context.get(0)?;
        when::parse(&text, now_ms, &TimeZone::UTC).ok_or_else(|| {
            Error::UserFunctionError(format!("instant() takes {}", when::ACCEPTED).into())
        })
    })?;
    conn.create_scalar_function("utc", 1, pure, |context| {
        let ms: Option<i64> = context.get(0)?;
        let time = ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Ok(time.map(|time| format!("{time:.3}")))
    })?;
    Ok(conn)
}

fn run(
    conn: &Connection,
    text: &str,
    access: &Access,
    beside: &dyn Beside,
    answer: &mut dyn Answer,
) -> Result<(), ReadError> {
    let mut batch = Batch::new(conn, text);
    let Some(mut statement) = batch.next().map_err(refused)? else {
        return Err(ReadError::Statement("there is no statement".to_owned()));
    };
    // A second one that makes no sense is a second one.
    if !matches!(batch.next(), Ok(None)) {
        return Err(ReadError::Statement("there is more than one statement: ask one".to_owned()));
    }
    // What has no columns answers nothing, such as REINDEX where there is no index.
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(only_reads());
    }
    if statement.parameter_count() > 0 {
        let wrong = "nothing stands for a `?` or a `:name` here: write the value";
        return Err(ReadError::Statement(wrong.to_owned()));
    }
    if access.has_gaps() {
        let gaps = beside.gaps().map_err(ReadError::Beside)?;
        access.filling(|| fill(conn, GAPS.name, GAP_COLUMNS, &gaps)).map_err(refused)?;
    }
    if access.has_peers() {
        let peers = beside.peers().map_err(ReadError::Beside)?;
        access.filling(|| fill(conn, PEERS.name, PEER_COLUMNS, &peers)).map_err(refused)?;
    }
    answer.columns(unique(&statement));
    let count = statement.column_count();
    let mut rows = statement.query([]).map_err(refused)?;
    each(&mut rows, count, answer).map_err(refused)
}

fn each(rows: &mut Rows<'_>, count: usize, answer: &mut dyn Answer) -> rusqlite::Result<()> {
    while let Some(row) = rows.next()? {
        let cells: Vec<Cell<'_>> =
            (0..count).map(|index| row.get_ref(index).map(Into::into)).collect::<Result<_, _>>()?;
        if answer.row(&cells).is_break() {
            break;
        }
    }
    Ok(())
}

fn fill<T>(
    conn: &Connection,
    table: &str,
    columns: &[Column<T>],
    rows: &[T],
) -> rusqlite::Result<()> {
    let places = ",?".repeat(columns.len());
    let mut insert = conn.prepare(&format!("INSERT INTO {table} VALUES ({})", &places[1..]))?;
    for row in rows {
        insert.execute(params_from_iter(columns.iter().map(|column| (column.value)(row))))?;
    }
    Ok(())
}

/// The names of the columns; one that came before has a number behind it.
fn unique(statement: &Statement<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in statement.column_names() {
        let mut own = name.to_owned();
        let mut number = 2;
        while names.contains(&own) {
            own = format!("{name}_{number}");
            number += 1;
        }
        names.push(own);
    }
    names
}

/// What SQLite does not do, in one line.
fn refused(error: Error) -> ReadError {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => only_reads(),
        Some(ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
            ReadError::Temporary(failure::with_remedy(&error))
        }
        _ => match told(error) {
            // Of a function, which has no code of its own.
            told if told.starts_with("not authorized") => only_reads(),
            told => ReadError::Statement(one_line(&told)),
        },
    }
}

fn only_reads() -> ReadError {
    ReadError::Statement(ONLY_READS.to_owned())
}

fn told(error: Error) -> String {
    let (said, offset) = match error {
        Error::SqlInputError { msg, offset, .. } => (msg, usize::try_from(offset).ok()),
        error => (error.to_string(), None),
    };
    match offset {
        _ if said.starts_with("no such table") => {
            format!("{said}; the tables are records, gaps and peers")
        }
        Some(at) => format!("{said}, at byte {}", at + 1),
        None => said,
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
mod tests;
