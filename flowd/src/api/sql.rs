//! `/v1/sql`: a statement of the client's own, its rows streamed in constant memory.
//!
//! A statement that fails before its first piece is sent gets a problem; later, the body breaks
//! off.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{
    ApiState,
    error::ApiError,
    flows::{Waiting, now_ms, place},
    gaps,
    params::Params,
    records::{CHUNK_BYTES, CHUNKS, Format, typed},
    witness::{Details, WANTED_CHARS, start},
};
use crate::{
    audit::Hash,
    flows::Gap,
    live::{Awaited, Live, Request},
    store::{
        Leash, ReadError, Reader,
        sql::{self, Answer, Beside, Cell, ColumnInfo, Question, Table},
    },
    wire::{Peer, SqlColumn, SqlTable, SqlTables, csv_text},
};

/// Rows that may be asked for.
pub(super) const MAX_LIMIT: usize = 1_000_000_000;
/// Statements at a time; the others wait for their turn.
static STATEMENTS: Semaphore = Semaphore::const_new(4);

/// `GET /v1/sql`: the tables.
pub(super) async fn tables(params: Params) -> Result<Json<SqlTables>, ApiError> {
    params.only(&[])?;
    let column = |ColumnInfo { name, kind, about }| SqlColumn {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        about: about.to_owned(),
    };
    let table = |(Table { name, about }, columns): (_, Vec<_>)| SqlTable {
        name: name.to_owned(),
        about: about.to_owned(),
        columns: columns.into_iter().map(column).collect(),
    };
    Ok(Json(SqlTables { tables: sql::tables().into_iter().map(table).collect() }))
}

/// `POST /v1/sql`: the answer to the statement in the body.
pub(super) async fn ask(
    State(state): State<ApiState>,
    headers: HeaderMap,
    params: Params,
    body: Result<BytesMut, BytesRejection>,
) -> Result<Response, ApiError> {
    params.only(&["limit"])?;
    let format = Format::wanted(&headers, "/v1/sql")?;
    let limit = params.limit(MAX_LIMIT)?.unwrap_or(usize::MAX);
    let text = text(body)?;
    let asked = asked(&text);
    let watermark = state.live.ask(|reply| Request::Watermark { reply }).await?;
    let question = Question { text, gateway: state.gateway.clone(), watermark, now_ms: now_ms() };
    let (pieces, mut body) = mpsc::channel(CHUNKS);
    tokio::spawn(run(state, question, Rows::new(format, limit), pieces));
    let kind = format.kind();
    let mut response = match body.recv().await {
        None => Err(ApiError::CutOff),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(Piece { bytes, is_last: true })) => Ok(typed(kind, Body::from(bytes))),
        Some(Ok(Piece { bytes, is_last: false })) => {
            let rest = ReceiverStream::new(body).map(|piece| match piece {
                Ok(Piece { bytes, .. }) => Ok(bytes),
                Err(error) => {
                    tracing::warn!(%error, "an answer broke off");
                    Err(io::Error::other(error))
                }
            });
            Ok(typed(kind, Body::from_stream(tokio_stream::once(Ok(bytes)).chain(rest))))
        }
    }
    .unwrap_or_else(ApiError::into_response);
    response.extensions_mut().insert(asked);
    Ok(response)
}

/// What the audit log is told of a statement.
fn asked(text: &str) -> Details {
    let statement =
        [("sql", start(text, WANTED_CHARS)), ("sql_sha256", Hash::of(text.as_bytes()).to_string())];
    Details(statement.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect())
}

fn text(body: Result<BytesMut, BytesRejection>) -> Result<String, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::TooLarge(format!("the statement has more than {} bytes", sql::MAX_BYTES))
        }
        _ => ApiError::BadRequest("the statement broke off, or took too long to come".to_owned()),
    })?;
    String::from_utf8(body.into())
        .map_err(|_| ApiError::BadRequest("the statement is no UTF-8 text".to_owned()))
}

/// Refuses a method that the path does not take.
pub(super) async fn wrong_method(method: axum::http::Method) -> ApiError {
    ApiError::Method(format!("/v1/sql takes POST and GET, not {method}"))
}

/// A part of an answer.
struct Piece {
    bytes: Bytes,
    is_last: bool,
}

type Pieces = mpsc::Sender<Result<Piece, ReadError>>;

/// Runs a statement where it may block, as long as somebody waits for its answer.
async fn run(state: ApiState, question: Question, rows: Rows, pieces: Pieces) {
    let turn = tokio::select! {
        turn = place(&STATEMENTS, state.query_timeout) => turn,
        () = pieces.closed() => return,
    };
    let turn = match turn {
        Ok(turn) => turn,
        Err(late) => {
            let _gone = pieces.send(Err(late)).await;
            return;
        }
    };
    let leash = Leash::new(state.query_timeout);
    let (waiting, client) = (Waiting(leash.clone()), pieces.clone());
    let limit = state.query_timeout;
    let work = move || {
        let reader = state.reader.clone().on(leash.clone());
        let daemon = Daemon { live: state.live.clone(), reader };
        let mut answer = Stream { rows, pieces, leash, limit, ended: None };
        let asked = sql::ask(&state.reader, &answer.leash.clone(), &question, &daemon, &mut answer);
        answer.last(asked.map(|_read| ()))
    };
    let mut work = tokio::task::spawn_blocking(work);
    let last = tokio::select! {
        last = &mut work => last,
        () = client.closed() => {
            drop(waiting);
            work.await
        }
    };
    // Somebody else's, also while this client takes its time.
    drop(turn);
    let cut_off = |_| Err(ReadError::Beside("the statement was cut off".to_owned()));
    // Fails when the client has gone.
    let _gone = client.send(last.unwrap_or_else(cut_off)).await;
}

/// The drain thread, and what it has stored, asked from where one may block.
struct Daemon {
    live: Live,
    reader: Reader,
}

impl Beside for Daemon {
    fn gaps(&self) -> Result<Vec<Gap>, String> {
        let pending = self.live.send(|reply| Request::Gaps { reply });
        let pending = pending.and_then(Awaited::wait).map_err(|error| error.to_string())?;
        let gaps = gaps::touching(&self.reader, pending, (None, None));
        gaps.map_err(|error| error.to_string())
    }

    fn peers(&self) -> Result<Arc<Vec<Peer>>, String> {
        let peers = self.live.send(|reply| Request::Peers { reply });
        peers.and_then(Awaited::wait).map_err(|error| error.to_string())
    }
}

/// Rows on their way to one client.
struct Stream {
    rows: Rows,
    pieces: Pieces,
    leash: Leash,
    /// How long a client may take to read a piece.
    limit: Duration,
    /// Why no more rows are sent.
    ended: Option<ReadError>,
}

impl Answer for Stream {
    fn columns(&mut self, names: Vec<String>) {
        self.rows.begin(names);
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        self.rows.row(cells)?;
        while self.rows.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        ControlFlow::Continue(())
    }
}

impl Stream {
    /// Sends a piece when the client has room for it.
    fn send(&mut self) -> ControlFlow<()> {
        let room = tokio::time::timeout(self.limit, self.pieces.reserve());
        match Handle::current().block_on(room) {
            Ok(Ok(room)) => {
                self.leash.renew();
                let bytes = self.rows.take(CHUNK_BYTES);
                room.send(Ok(Piece { bytes, is_last: false }));
                return ControlFlow::Continue(());
            }
            Ok(Err(_)) => self.ended = Some(ReadError::Abandoned),
            Err(_) => self.ended = Some(ReadError::TooLong(self.limit)),
        }
        ControlFlow::Break(())
    }

    /// What is left to send.
    fn last(mut self, asked: Result<(), ReadError>) -> Result<Piece, ReadError> {
        asked?;
        if let Some(error) = self.ended {
            return Err(error);
        }
        self.rows.end();
        Ok(Piece { bytes: self.rows.take(usize::MAX), is_last: true })
    }
}

/// Rows as text.
struct Rows {
    format: Format,
    names: Vec<String>,
    buffer: Vec<u8>,
    /// How many may follow.
    left: usize,
    /// What stands before the next row.
    comma: &'static str,
    /// Whether rows were left out.
    more: bool,
}

impl Rows {
    fn new(format: Format, limit: usize) -> Self {
        let (names, buffer) = (Vec::new(), Vec::new());
        Self { format, names, buffer, left: limit, comma: "", more: false }
    }

    fn begin(&mut self, names: Vec<String>) {
        self.names = names;
        match self.format {
            Format::Json => {
                self.buffer.extend_from_slice(b"{\"columns\":");
                self.json(&serde_json::Value::from(self.names.as_slice()));
                self.buffer.extend_from_slice(b",\"rows\":[");
            }
            Format::JsonLines => {}
            Format::Csv => self.csv(self.names.iter().map(|name| csv_text(name)).collect()),
        }
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        if self.left == 0 {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.left -= 1;
        match self.format {
            Format::Json => {
                self.buffer.extend_from_slice(self.comma.as_bytes());
                let values: Vec<_> = cells.iter().map(value).collect();
                self.json(&values.into());
                self.comma = ",\n";
            }
            Format::JsonLines => {
                // By hand, in the order of the columns.
                let names = std::mem::take(&mut self.names);
                let mut comma = b'{';
                for (name, cell) in names.iter().zip(cells) {
                    self.buffer.push(std::mem::replace(&mut comma, b','));
                    self.json(&name.as_str().into());
                    self.buffer.push(b':');
                    self.json(&value(cell));
                }
                self.buffer.extend_from_slice(b"}\n");
                self.names = names;
            }
            Format::Csv => self.csv(cells.iter().map(text_of).collect()),
        }
        ControlFlow::Continue(())
    }

    fn end(&mut self) {
        if self.format == Format::Json {
            self.buffer.extend_from_slice(format!("],\"more\":{}}}\n", self.more).as_bytes());
        }
    }

    /// The first bytes of what is not sent.
    fn take(&mut self, most: usize) -> Bytes {
        let length = self.buffer.len().min(most);
        // A copy of just this length: it was made in a buffer that grew by doubling.
        let bytes = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.drain(..length);
        bytes
    }

    fn json(&mut self, value: &serde_json::Value) {
        serde_json::to_writer(&mut self.buffer, value).expect("a vector takes every byte");
    }

    fn csv(&mut self, cells: Vec<String>) {
        let mut csv = csv::Writer::from_writer(&mut self.buffer);
        csv.write_record(cells).expect("a vector takes every byte");
        csv.flush().expect("a vector takes every byte");
    }
}

/// What is no number of JSON is null.
fn value(cell: &Cell<'_>) -> serde_json::Value {
    match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Integer(number) => (*number).into(),
        Cell::Real(number) => (*number).into(),
        Cell::Text(text) => text.as_ref().into(),
        Cell::Blob(bytes) => hex(bytes).into(),
    }
}

fn text_of(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Text(text) => csv_text(text),
        Cell::Integer(_) => value(cell).to_string(),
        Cell::Real(number) if number.is_finite() => value(cell).to_string(),
        Cell::Real(_) => String::new(),
        Cell::Blob(bytes) => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).expect("four bits are a digit")
}
