//! What column chunks cost: bytes a record by column, nanoseconds to encode and to decode, how much
//! a question skips, and how long it takes over a day of ten million records.
//!
//! Everything is in memory: the figures are those of the format, not of SQLite or the disk. A
//! question starts from headers; it loads, checks and decodes the columns that it needs.

#[path = "chunk/generate.rs"]
mod generate;
#[path = "chunk/questions.rs"]
mod questions;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use flowd::chunk::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, Encoded, Header, MAX_ROWS, Number, Row,
};
use flowd::flows;
use generate::{DESTINATIONS, Generator, PEERS};
use serde_json::{Value, json};

/// Ten million records come in about a day.
const FLOWS_PER_S: f64 = 60.0;
const SEED: u64 = 1;
/// Records that are left out at first, until long flows are as frequent as they will be.
const WARM_UP: usize = 300_000;
const RECORDS: usize = 10_000_000;
/// Records of a chunk.
const CHUNK: usize = 131_072;
/// Times that something is done of which the fastest counts.
const TRIES: usize = 7;

fn main() -> ExitCode {
    // `cargo test` runs benches with `--test`: there is nothing to assert in a time.
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    match measure().map_err(|error| error.to_string()).and_then(|report| report.write()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench chunk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Report, ChunkError> {
    println!("{PEERS} peers, {DESTINATIONS} destinations, {FLOWS_PER_S} flows a second\n");
    let mut report = Report::default();
    sizes(&mut report)?;
    columns(&mut report)?;
    questions::ask(&day()?, &mut report)?;
    Ok(report)
}

/// What was measured, for machines.
#[derive(Default)]
struct Report(Vec<Value>);

impl Report {
    fn add(&mut self, what: &str, figure: f64, unit: &str) {
        self.0.push(json!({ "what": what, "figure": figure, "unit": unit }));
    }

    fn write(&self) -> Result<(), String> {
        let Ok(path) = std::env::var("FLOWD_BENCH_JSON") else { return Ok(()) };
        let text = Value::from(self.0.clone()).to_string();
        std::fs::write(&path, text).map_err(|error| format!("cannot write {path}: {error}"))
    }
}

/// The fastest of some tries.
fn fastest<T>(mut work: impl FnMut() -> Result<T, ChunkError>) -> Result<Duration, ChunkError> {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        black_box(work()?);
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn ns_each(time: Duration, rows: usize) -> f64 {
    time.as_nanos() as f64 / rows as f64
}

/// How the number of records in a chunk matters.
fn sizes(report: &mut Report) -> Result<(), ChunkError> {
    println!("{:>10} {:>14} {:>12} {:>12}", "records", "bytes a record", "encode ns", "decode ns");
    for count in [8_192, 16_384, 32_768, 65_536, CHUNK, 262_144, MAX_ROWS] {
        let rows: Vec<Row> = Generator::new(SEED, FLOWS_PER_S).skip(WARM_UP).take(count).collect();
        let encoded = Encoded::of(&rows)?;
        let encode = fastest(|| Encoded::of(&rows))?;
        let chunk = open(&encoded, ColumnId::ALL.iter().copied().collect())?;
        assert!(chunk.all_rows()? == rows, "the chunk has other rows than went in");
        let decode = fastest(|| chunk.all_rows())?;
        let bytes = encoded.bytes() as f64 / count as f64;
        let (encode, decode) = (ns_each(encode, count), ns_each(decode, count));
        println!("{count:>10} {bytes:>14.2} {encode:>12.0} {decode:>12.0}");
        report.add(&format!("chunk of {count}"), bytes, "bytes a record");
        report.add(&format!("encode a chunk of {count}"), encode, "ns a record");
        report.add(&format!("decode a chunk of {count}"), decode, "ns a record");
    }
    println!();
    Ok(())
}

/// What each column takes, and how long it takes to read what is asked for.
fn columns(report: &mut Report) -> Result<(), ChunkError> {
    let rows: Vec<Row> = Generator::new(SEED, FLOWS_PER_S).skip(WARM_UP).take(CHUNK).collect();
    let encoded = Encoded::of(&rows)?;
    println!("{:<18} {:>14}", "column", "bytes a record");
    let mut line = |what: &str, figure: f64, unit: &str| {
        println!("{what:<18} {figure:>14.3}");
        report.add(what, figure, unit);
    };
    let share = |bytes: usize| bytes as f64 / CHUNK as f64;
    line("header", share(encoded.header.len()), "bytes a record");
    for (column, blob) in &encoded.columns {
        line(&format!("{column:?}"), share(blob.len()), "bytes a record");
    }
    line("all", share(encoded.bytes()), "bytes a record");
    println!("\n{:<18} {:>14}", "asked for", "ns a record");
    for number in Number::ALL {
        let chunk = open(&encoded, number.columns())?;
        let time = fastest(|| chunk.pages().try_for_each(|page| page.numbers(number).map(drop)))?;
        line(&format!("decode {number:?}"), ns_each(time, CHUNK), "ns a record");
    }
    for code in [Code::Peer, Code::Remote, Code::Kind, Code::State] {
        let chunk = open(&encoded, code.columns())?;
        let time = fastest(|| chunk.pages().try_for_each(|page| page.codes(code).map(drop)))?;
        line(&format!("decode {code:?}"), ns_each(time, CHUNK), "ns a record");
    }
    println!();
    Ok(())
}

fn open(encoded: &Encoded, columns: ColumnSet) -> Result<Chunk, ChunkError> {
    let chunk = Chunk::new(Header::decode(&encoded.header)?);
    questions::load(&chunk, encoded, columns)?;
    Ok(chunk)
}

/// A day in chunks.
fn day() -> Result<Vec<Encoded>, ChunkError> {
    let mut generator = Generator::new(SEED, FLOWS_PER_S).skip(WARM_UP).take(RECORDS);
    let mut chunks = Vec::new();
    loop {
        let rows: Vec<Row> = generator.by_ref().take(CHUNK).collect();
        if rows.is_empty() {
            return Ok(chunks);
        }
        chunks.push(Encoded::of(&rows)?);
    }
}
