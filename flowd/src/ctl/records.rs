//! `flowctl records` and `flowctl watch`: records one by one.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    client::{Client, Pairs},
    error::CtlError,
    flows::verdict,
    lists::Page,
    output::{Format, Screen},
    text,
};
use crate::wire::{CSV_COLUMNS, RecordPage, Watched, csv_row};

/// Records that a table shows unless asked for more.
const DEFAULT: u64 = 100;

/// Stored records, oldest first.
pub(super) async fn list(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    page: &Page,
) -> Result<(), CtlError> {
    let mut pairs = page.filters.pairs(&screen.clock)?;
    pairs.extend(page.cursor.clone().map(|cursor| ("cursor", cursor)));
    let limit = match format {
        Format::Table => Some(page.limit.unwrap_or(DEFAULT)),
        _ => page.limit,
    };
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    match format {
        Format::Json => {
            let answer: RecordPage = client.query("/v1/records", &pairs).await?;
            screen.json(&answer)?;
            screen.flush()?;
            if answer.next_cursor.is_some() && page.limit.is_none() {
                let count = answer.records.len();
                text::tell(&format_args!(
                    "these are the first {count}; --limit N and --cursor show more, `-o jsonl` \
                     shows all"
                ));
            }
            Ok(())
        }
        Format::Jsonl => copy(client, screen, &pairs, "application/x-ndjson").await,
        Format::Csv => copy(client, screen, &pairs, "text/csv").await,
        Format::Table => {
            let body = client.open("/v1/records", &pairs, "application/x-ndjson").await?;
            each_line(body, |line| show(screen, line)).await
        }
    }
}

/// Hands the daemon's own text on.
async fn copy(
    client: &Client<'_>,
    screen: &mut Screen,
    pairs: &Pairs,
    accept: &str,
) -> Result<(), CtlError> {
    let mut body = client.open("/v1/records", pairs, accept).await?;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            screen.raw(&data)?;
        }
    }
    screen.flush()
}

/// Live records, until interrupted.
pub(super) async fn watch(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    pairs: &Pairs,
) -> Result<(), CtlError> {
    let body = client.open("/v1/watch", pairs, "application/x-ndjson").await?;
    if format == Format::Csv {
        screen.csv(&CSV_COLUMNS, std::iter::empty())?;
        screen.flush()?;
    }
    each_line(body, |line| match format {
        Format::Table => show(screen, line),
        Format::Json | Format::Jsonl => {
            screen.raw(line)?;
            screen.raw(b"\n")?;
            screen.flush()
        }
        Format::Csv => match parse(line)? {
            Watched::Record(record) => screen.csv_line(&csv_row(&record)),
            Watched::Skipped { skipped } => {
                tell_skipped(skipped);
                Ok(())
            }
        },
    })
    .await
}

pub(super) fn parse(line: &[u8]) -> Result<Watched, CtlError> {
    serde_json::from_slice(line).map_err(|error| CtlError::Nonsense(error.to_string()))
}

pub(super) fn tell_skipped(skipped: u64) {
    text::tell(&format_args!(
        "fell behind and skipped {skipped} records; they are in `flowctl records`"
    ));
}

/// One record on one line.
fn show(screen: &mut Screen, line: &[u8]) -> Result<(), CtlError> {
    let record = match parse(line)? {
        Watched::Record(record) => record,
        Watched::Skipped { skipped } => {
            tell_skipped(skipped);
            return Ok(());
        }
    };
    let peer =
        record.peer.as_ref().map_or_else(|| "-".to_owned(), |peer| text::visible(&peer.name));
    let end = record.end_reason.map_or("open", |reason| reason.word());
    screen.line(&format!(
        "{}  {peer:<16} {:<14} {} → {}  rx {}  tx {}  {}  {end}",
        screen.clock.short(record.window_end),
        text::protocol(record.protocol_number, record.overflow, record.icmp),
        text::endpoint(&record.src),
        text::endpoint(&record.dst),
        text::bytes(record.counters.rx_bytes),
        text::bytes(record.counters.tx_bytes),
        verdict(record.verdict, record.enforced).text,
    ))?;
    screen.flush()
}

/// Cuts a body into lines.
pub(super) async fn each_line(
    mut body: Incoming,
    mut visit: impl FnMut(&[u8]) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        rest.extend_from_slice(&data);
        let mut begun = 0;
        while let Some(length) = rest[begun..].iter().position(|byte| *byte == b'\n') {
            visit(&rest[begun..begun + length])?;
            begun += length + 1;
        }
        rest.drain(..begun);
    }
    Ok(())
}
