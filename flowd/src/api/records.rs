//! `/v1/records` and `/v1/watch`: records one by one, in constant memory.

use std::{convert::Infallible, ops::ControlFlow, sync::Arc};

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
use tokio::sync::{broadcast, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{
    ApiState,
    error::ApiError,
    flows::{blocking, now_ms, refuse_state},
    params::{CURSOR, Params},
};
use crate::{
    flows::{Filter, Record},
    live::{Pending, Request},
    store::ReadError,
    wire,
};

/// Records of a JSON page unless the query says otherwise.
const DEFAULT_PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;
/// Chunks of a stream that wait for a slow reader; then the query waits.
const CHUNKS: usize = 4;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    Csv,
}

impl Format {
    const JSON_LINES: &str = "application/x-ndjson";
    const CSV: &str = "text/csv";

    /// The first format of `Accept` that the API has.
    fn wanted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(accept) = headers.get(ACCEPT) else {
            return Ok(Self::Json);
        };
        let text = accept.to_str().unwrap_or_default();
        text.split(',')
            .find_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                Self::JSON_LINES => Some(Self::JsonLines),
                Self::CSV | "text/*" => Some(Self::Csv),
                _ => None,
            })
            .ok_or_else(|| {
                ApiError::NotAcceptable(
                    "/v1/records has application/json, application/x-ndjson and text/csv"
                        .to_owned(),
                )
            })
    }
}

/// `GET /v1/records`: stored records, by ascending id.
pub(super) async fn list(
    State(state): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let format = Format::wanted(&headers)?;
    let filter = params.filter(&["limit", "cursor"], now_ms())?;
    let after = params.read("cursor", CURSOR, |text| text.parse::<u64>().ok())?.unwrap_or(0);
    let max = if format == Format::Json { MAX_PAGE } else { usize::MAX };
    let limit = params.limit(max)?;
    // The watermark makes the answer one instant's, however long it is read.
    let id = crate::flows::FlowId(uuid::Uuid::nil());
    let Pending { watermark, .. } = state.live.ask(|reply| Request::Flow { id, reply }).await?;
    match format {
        Format::Json => {
            let limit = limit.unwrap_or(DEFAULT_PAGE);
            let page = blocking(move || page(&state, &filter, after, watermark, limit)).await?;
            Ok(Json(page).into_response())
        }
        Format::JsonLines | Format::Csv => {
            let limit = limit.unwrap_or(usize::MAX);
            Ok(stream(state, filter, format, after, watermark, limit))
        }
    }
}

fn page(
    state: &ApiState,
    filter: &Filter,
    after: u64,
    watermark: u64,
    limit: usize,
) -> Result<wire::RecordPage, ReadError> {
    let mut records = Vec::new();
    state.reader.records(filter, after, watermark, &mut |record| {
        records.push(wire::Record::new(&state.gateway, &record));
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
    let (chunks, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut writer = Lines { format, buffer: Vec::new(), begun: false };
        let mut left = limit;
        let read = state.reader.records(&filter, after, watermark, &mut |record| {
            writer.write(&wire::Record::new(&state.gateway, &record));
            left -= 1;
            let full = writer.buffer.len() >= CHUNK_BYTES;
            // The reader has gone when the channel is closed.
            if left == 0 || (full && chunks.blocking_send(Ok(writer.take())).is_err()) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let last = match read {
            Ok(()) => Ok(writer.take()),
            // The status is long sent: a body that breaks off tells that it is not whole.
            Err(error) => {
                tracing::error!(%error, "a query failed");
                Err(std::io::Error::other(error))
            }
        };
        // Fails when the reader has gone.
        let _gone = chunks.blocking_send(last);
    });
    let kind = match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::Json | Format::JsonLines => Format::JSON_LINES,
    };
    typed(kind, Body::from_stream(ReceiverStream::new(body)))
}

fn typed(kind: &'static str, body: Body) -> Response {
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
                    write_json(&mut line, &wire::Record::new(&gateway, &record));
                }
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(skipped)) => {
                    write_json(&mut line, &serde_json::json!({ "skipped": skipped }));
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
        if lines.send(line.into()).await.is_err() {
            return;
        }
    }
}
