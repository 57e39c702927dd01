//! `/v1/records` and `/v1/watch`: records one by one, in constant memory.

use std::{convert::Infallible, ops::ControlFlow, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, broadcast, mpsc},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{
    ApiState,
    error::ApiError,
    flows::{Waiting, blocking, now_ms, refuse_state, turn},
    params::{CURSOR, Params, digits},
};
use crate::{
    flows::{Filter, Record},
    live::Request,
    store::{Leash, Reached, ReadError, Reader},
    wire,
};

/// Records of a JSON page unless the query says otherwise.
pub(super) const DEFAULT_PAGE: usize = 1_000;
pub(super) const MAX_PAGE: usize = 10_000;
/// Chunks of a stream that wait for a slow reader; then the query waits.
pub(super) const CHUNKS: usize = 4;
/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// What a stream holds for a reader that does not read: the chunks that wait, one that is being
/// written and one that is being sent, none of them full to the byte.
pub(super) const STREAM_BYTES: usize = (CHUNKS + 4) * CHUNK_BYTES;
/// How long a query waits for a reader before it ends, and begins anew where it was.
const PAUSE: Duration = Duration::from_secs(1);
/// Streams that read the store at a time; the others wait for their turn.
const MAX_STREAMS: usize = 8;
static STREAMS: Semaphore = Semaphore::const_new(MAX_STREAMS);

/// Streams that read the store, and how many may.
pub(super) fn running() -> (usize, usize) {
    (MAX_STREAMS - STREAMS.available_permits(), MAX_STREAMS)
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    JsonLines,
    Csv,
}

impl Format {
    const JSON_LINES: &str = "application/x-ndjson";
    const CSV: &str = "text/csv";

    /// The format that `Accept` wants most of those that a path has; the first of equals.
    pub(super) fn wanted(headers: &HeaderMap, path: &str) -> Result<Self, ApiError> {
        if !headers.contains_key(ACCEPT) {
            return Ok(Self::Json);
        }
        let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let mut best: Option<(f32, Self)> = None;
        for kind in lines.flat_map(|line| line.split(',')) {
            let Some((weight, format)) = Self::asked(kind) else { continue };
            if weight > best.map_or(0.0, |(weight, _)| weight) {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            ApiError::NotAcceptable(format!(
                "{path} has application/json, application/x-ndjson and text/csv"
            ))
        })
    }

    /// One of the kinds of `Accept` and its weight (RFC 9110, section 12.4.2); zero: not wanted.
    fn asked(kind: &str) -> Option<(f32, Self)> {
        let kind = kind.to_ascii_lowercase();
        let mut parts = kind.split(';').map(str::trim);
        let format = match parts.next()? {
            "application/json" | "application/*" | "*/*" => Self::Json,
            Self::JSON_LINES => Self::JsonLines,
            Self::CSV | "text/*" => Self::Csv,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        Some((weight.map_or(Some(1.0), |weight| weight.trim().parse().ok())?, format))
    }

    /// As `Content-Type` has it.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => Self::JSON_LINES,
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// `GET /v1/records`: stored records, by ascending id.
pub(super) async fn list(
    State(state): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let format = Format::wanted(&headers, "/v1/records")?;
    let filter = params.filter(&["limit", "cursor"], now_ms())?;
    let after = params.cursor(CURSOR, digits::<u64>)?.unwrap_or(0);
    let max = if format == Format::Json { MAX_PAGE } else { usize::MAX };
    let limit = params.limit(max)?;
    // The watermark makes the answer one instant's, however long it is read.
    let watermark = state.live.ask(|reply| Request::Watermark { reply }).await?;
    match format {
        Format::Json => {
            let limit = limit.unwrap_or(DEFAULT_PAGE);
            let _turn = turn(&state, limit).await?;
            let gateway = state.gateway.clone();
            let page = blocking(&state, move |reader| {
                Ok(page(reader, &gateway, &filter, (after, watermark), limit)?)
            });
            let page = page.await?;
            Ok(Json(page).into_response())
        }
        Format::JsonLines | Format::Csv => {
            let limit = limit.unwrap_or(usize::MAX);
            Ok(stream(state, filter, format, after, watermark, limit))
        }
    }
}

fn page(
    reader: &Reader,
    gateway: &str,
    filter: &Filter,
    (after, watermark): (u64, u64),
    limit: usize,
) -> Result<wire::RecordPage, ReadError> {
    let mut records = Vec::new();
    reader.records(filter, after, watermark, &mut |record| {
        records.push(wire::Record::new(gateway, &record));
        if records.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_cursor = records
        .last()
        .filter(|_| more)
        .and_then(|record| record.record_id)
        .map(|id| id.to_string());
    Ok(wire::RecordPage { records, next_cursor })
}

fn stream(
    state: ApiState,
    filter: Filter,
    format: Format,
    after: u64,
    watermark: u64,
    limit: usize,
) -> Response {
    let (chunks, body) = mpsc::channel(CHUNKS);
    let lines = Lines { format, buffer: Vec::new(), begun: false };
    let reached = Reached::new(after);
    let stream = Stream { state, filter, watermark, reached, left: limit, lines, chunks };
    tokio::spawn(stream.run());
    typed(format.kind(), Body::from_stream(ReceiverStream::new(body)))
}

/// Records on their way to one reader.
struct Stream {
    state: ApiState,
    filter: Filter,
    watermark: u64,
    /// Behind which record it goes on.
    reached: Reached,
    /// How many may follow.
    left: usize,
    lines: Lines,
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

/// Why a query of a stream has ended.
enum Pause {
    /// There is no more.
    Done,
    /// The reader takes its time.
    Slow,
    /// The reader has gone.
    Gone,
}

impl Stream {
    /// Reads on whenever the reader does. A reader that pauses holds no query meanwhile: its place
    /// in the store would keep the write-ahead log from being folded in.
    async fn run(mut self) {
        loop {
            let Ok(turn) = STREAMS.acquire().await else { return };
            let leash = Leash::new(self.state.query_timeout);
            let (waiting, chunks) = (Waiting(leash.clone()), self.chunks.clone());
            let mut read = tokio::task::spawn_blocking(move || {
                let pause = self.read(&leash);
                (self, pause)
            });
            let read = tokio::select! {
                read = &mut read => read,
                () = chunks.closed() => {
                    drop(waiting);
                    read.await
                }
            };
            let Ok((stream, pause)) = read else { return };
            self = stream;
            let goes_on = matches!(pause, Ok(Pause::Slow));
            let last = match pause {
                Ok(Pause::Gone) | Err(ReadError::Abandoned) => return,
                Ok(Pause::Done | Pause::Slow) => Ok(self.lines.take()),
                // The status is long sent: a body that breaks off tells that it is not whole.
                Err(error) => {
                    tracing::error!(%error, "a query failed");
                    Err(std::io::Error::other(error))
                }
            };
            drop(turn);
            // Fails when the reader has gone.
            if self.chunks.send(last).await.is_err() || !goes_on {
                return;
            }
        }
    }

    /// Reads until the end, or until the reader does not follow.
    fn read(&mut self, leash: &Leash) -> Result<Pause, ReadError> {
        let Self { state, filter, watermark, reached, left, lines, chunks } = self;
        let mut pause = Pause::Done;
        if chunks.is_closed() {
            return Ok(Pause::Gone);
        }
        let reader = state.reader.clone().on(leash.clone());
        reader.records_on(filter, reached, *watermark, &mut |record| {
            lines.write(&wire::Record::new(&state.gateway, &record));
            *left -= 1;
            if *left == 0 {
                return ControlFlow::Break(());
            }
            if lines.buffer.len() < CHUNK_BYTES {
                return ControlFlow::Continue(());
            }
            let room = tokio::time::timeout(PAUSE, chunks.reserve());
            match Handle::current().block_on(room) {
                Ok(Ok(room)) => {
                    leash.renew();
                    room.send(Ok(lines.take()));
                    return ControlFlow::Continue(());
                }
                Ok(Err(_)) => pause = Pause::Gone,
                Err(_) => pause = Pause::Slow,
            }
            ControlFlow::Break(())
        })?;
        Ok(pause)
    }
}

pub(super) fn typed(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Records as lines of text.
struct Lines {
    format: Format,
    buffer: Vec<u8>,
    begun: bool,
}

impl Lines {
    fn write(&mut self, record: &wire::Record) {
        match self.format {
            Format::Json | Format::JsonLines => write_json(&mut self.buffer, record),
            Format::Csv => self.write_csv(record),
        }
    }

    fn write_csv(&mut self, record: &wire::Record) {
        self.header();
        let mut csv = csv::Writer::from_writer(&mut self.buffer);
        csv.write_record(wire::csv_row(record)).expect("a vector takes every byte");
        csv.flush().expect("a vector takes every byte");
    }

    fn header(&mut self) {
        if self.begun || self.format != Format::Csv {
            return;
        }
        self.begun = true;
        let mut csv = csv::Writer::from_writer(&mut self.buffer);
        csv.write_record(wire::CSV_COLUMNS).expect("a vector takes every byte");
        csv.flush().expect("a vector takes every byte");
    }

    /// What was written since the last time; an empty answer has its header too.
    fn take(&mut self) -> Bytes {
        self.header();
        std::mem::take(&mut self.buffer).into()
    }
}

fn write_json(buffer: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(&mut *buffer, value).expect("these shapes have JSON");
    buffer.push(b'\n');
}

/// `GET /v1/watch`: records as they are written, until the reader or the daemon goes.
pub(super) async fn watch(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Response, ApiError> {
    let filter = params.filter(&[], now_ms())?;
    refuse_state(&filter)?;
    let (lines, body) = mpsc::channel::<Bytes>(CHUNKS);
    let records = state.live.subscribe();
    tokio::spawn(follow(records, filter, state.gateway, lines));
    let body = ReceiverStream::new(body).map(Ok::<_, Infallible>);
    Ok(typed(Format::JSON_LINES, Body::from_stream(body)))
}

/// Hands matching records on. A reader that falls behind is told how many it skipped; they are in
/// the store.
async fn follow(
    mut records: broadcast::Receiver<Arc<Record>>,
    filter: Filter,
    gateway: Arc<str>,
    lines: mpsc::Sender<Bytes>,
) {
    loop {
        let mut line = Vec::new();
        tokio::select! {
            () = lines.closed() => return,
            received = records.recv() => match received {
                Ok(record) if filter.matches(&record) => {
                    let record = wire::Record::new(&gateway, &record);
                    write_json(&mut line, &wire::Watched::Record(record.into()));
                }
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(skipped)) => {
                    write_json(&mut line, &wire::Watched::Skipped { skipped });
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
        if lines.send(line.into()).await.is_err() {
            return;
        }
    }
}
