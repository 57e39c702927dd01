//! The store by the crate's own writer and reader: records a second, bytes a record, and how long
//! questions take, warm and with nothing of the files in memory, beside DuckDB on the same records.
//!
//! `FLOWD_BENCH_LARGE=1` adds a hundred million records, `FLOWD_BENCH_RECORDS=1000000` has other
//! sizes, `FLOWD_BENCH_QUESTION=port` asks only what is called so.

#[path = "store/coming.rs"]
mod coming;
#[path = "store/duckdb.rs"]
mod duckdb;
#[path = "store/filled.rs"]
mod filled;
#[path = "chunk/generate.rs"]
mod generate;
#[path = "store/names.rs"]
mod names;
#[path = "store/nfdump.rs"]
mod nfdump;
#[path = "store/questions.rs"]
mod questions;
#[path = "store/socket.rs"]
mod socket;

use std::{error::Error, process::ExitCode, time::Duration};

use coming::Coming;
use duckdb::DuckDb;
use filled::Filled;
use flowd::{chunk::Row, flows};
use questions::{Answered, Question};
use serde_json::{Value, json};
use socket::Added;

const SIZES: [usize; 2] = [1_000_000, 10_000_000];
const LARGE: usize = 100_000_000;
const FLOWD: &str = "flowd";
const DUCKDB: &str = "DuckDB";
const NFDUMP: &str = "nfdump";

fn main() -> ExitCode {
    // `cargo test` runs benches with `--test`: there is nothing to assert in a time.
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    // As the daemon does: it is part of what a query takes.
    flowd::heap::tidy();
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let mut sizes = match std::env::var("FLOWD_BENCH_RECORDS") {
        Ok(sizes) => sizes.split(',').map(str::parse).collect::<Result<_, _>>()?,
        Err(_) => SIZES.to_vec(),
    };
    if std::env::var_os("FLOWD_BENCH_LARGE").is_some() {
        sizes.push(LARGE);
    }
    let mut report = Vec::new();
    for size in sizes {
        let figures = of_size(size)?;
        report.extend(figures.iter().map(|figure| figure.json(size)));
    }
    let Ok(path) = std::env::var("FLOWD_BENCH_JSON") else { return Ok(()) };
    Ok(std::fs::write(path, Value::from(report).to_string())?)
}

/// One measured value.
struct Figure {
    what: String,
    who: &'static str,
    value: f64,
    unit: &'static str,
}

impl Figure {
    fn json(&self, records: usize) -> Value {
        let Self { what, who, value, unit } = self;
        json!({ "records": records, "what": what, "who": who, "figure": value, "unit": unit })
    }
}

fn of_size(size: usize) -> Result<Vec<Figure>, Box<dyn Error>> {
    println!("{size} records");
    let mut filled = Filled::new(size)?;
    let mut questions = questions::all(&filled.facts);
    if let Ok(wanted) = std::env::var("FLOWD_BENCH_QUESTION") {
        questions.retain(|question| question.what.contains(&wanted));
    }
    let mut figures = of_ingest(&filled);
    let mut duckdb = DuckDb::load(&filled)?;
    if let Some(DuckDb { loaded, .. }) = &duckdb {
        let rate = filled.count as f64 / loaded.load_s;
        figures.extend(of_other(DUCKDB, rate, loaded.bytes, &filled));
    }
    let nfdump = nfdump::ask(&filled, &questions)?;
    if let Some(told) = &nfdump {
        figures.extend(of_other(NFDUMP, told.rate, told.bytes, &filled));
    }
    for figure in &figures {
        let Figure { what, who, value, unit } = figure;
        println!("  {who:<7} {what:<32} {value:>14.1} {unit}");
    }
    println!(
        "  flowd: durable commits of 10,000; DuckDB: one bulk load; nfdump: IPFIX over loopback"
    );
    let beside = |version: Option<&str>| version.map_or("absent".to_owned(), str::to_owned);
    let versions = (
        beside(duckdb.as_ref().map(|one| one.loaded.version.as_str())),
        beside(nfdump.as_ref().map(|told| told.version.as_str())),
    );
    println!("  DuckDB: {}, in Python; nfdump: {}, a process a question\n", versions.0, versions.1);
    print!("  {:<32} {FLOWD:>10} {:>10} {:>10}", "milliseconds", "none kept", "cold");
    for who in [DUCKDB, NFDUMP] {
        print!(" {who:>10} {:>10} {:>8} {:>8}", "cold", "ratio", "cold");
    }
    println!(" {:>13}", "the answer");
    // What the others wrote is not on the disk yet.
    // SAFETY: it takes nothing and gives nothing.
    unsafe { libc::sync() };
    for (index, question) in questions.iter().enumerate() {
        let first = question.first(&filled)?;
        let own = question.ask(&filled)?;
        let of_duckdb = duckdb.as_mut().map(|one| one.ask(question)).transpose()?;
        let others =
            [(DUCKDB, of_duckdb), (NFDUMP, nfdump.as_ref().and_then(|told| told.answers[index]))];
        show(question.what, (&own, first), others);
        figures.extend(questions::figures(question.what, FLOWD, &own));
        figures.push(questions::figure(question.what, "nothing kept", FLOWD, first));
        for (who, answered) in others {
            figures.extend(
                answered.iter().flat_map(|one| questions::figures(question.what, who, one)),
            );
        }
    }
    duckdb.map_or(Ok(()), DuckDb::end)?;
    figures.extend(while_records_come(&mut filled, &questions)?);
    for (what, took) in filled.seal()? {
        let value = took.cpu.as_secs_f64() * 1e9 / filled.count as f64;
        println!("  {what:<32} {value:>10.0} ns of a core for each record");
        figures.push(Figure { what: what.to_owned(), who: FLOWD, value, unit: "ns a record" });
    }
    println!();
    Ok(figures)
}

/// Asks again while records come in.
fn while_records_come(
    filled: &mut Filled,
    questions: &[Question],
) -> Result<Vec<Figure>, Box<dyn Error>> {
    println!("\n  milliseconds while {} records a second come in", coming::RATE);
    let coming = Coming::begin(filled);
    let mut figures = Vec::new();
    // What takes seconds has a core to itself for most of them, whatever comes in.
    for question in questions.iter().filter(|question| !question.is_long) {
        let value = question.time(filled)?.as_secs_f64() * 1e3;
        println!("  {:<32} {value:>10.2}", question.what);
        let what = format!("{}, while records come in", question.what);
        figures.push(Figure { what, who: FLOWD, value, unit: "ms" });
    }
    println!("  {:<32} {:>10} {:>10} {:>10}", "", "directly", "served", "added");
    for Added { what, direct, served } in socket::added(filled)? {
        let [direct, served] = [direct, served].map(|time| time.as_secs_f64() * 1e3);
        println!("  {what:<32} {direct:>10.2} {served:>10.2} {:>10.2}", served - direct);
        let what = format!("{what}, added by socket and JSON while records come in");
        figures.push(Figure { what, who: FLOWD, value: served - direct, unit: "ms" });
    }
    let came = coming.stop()?;
    filled.count += came.records;
    let rate = came.records as f64 / came.time.as_secs_f64();
    println!("  records came in                  {rate:>10.0} a second\n");
    Ok(figures)
}

fn of_ingest(filled: &Filled) -> Vec<Figure> {
    let records = filled.count as f64;
    let figure =
        |what: &str, value, unit| Figure { what: what.to_owned(), who: FLOWD, value, unit };
    let ingest = &filled.ingest;
    let rate = |records: f64, time: Duration| records / time.as_secs_f64();
    let (all, slowest) = (ingest.all(), ingest.slowest_tenth());
    vec![
        figure("ingest, on one core", rate(records, all.cpu), "records/s"),
        figure("its slowest tenth", rate(records / 10.0, slowest.cpu), "records/s"),
        figure("the drain thread's part", rate(records, ingest.of_writer().cpu), "records/s"),
        figure("ingest, with the disk", rate(records, all.wall), "records/s"),
        figure("longest wait for a chunk", ingest.longest_take.as_secs_f64() * 1e3, "ms"),
        figure("memory of a step", ingest.step_bytes as f64 / f64::from(1 << 20), "MiB"),
        figure("size, with the log", filled.open_bytes as f64 / records, "bytes a record"),
        figure("size", filled.closed_bytes as f64 / records, "bytes a record"),
    ]
}

fn of_other(who: &'static str, rate: f64, bytes: u64, filled: &Filled) -> [Figure; 2] {
    let figure = |what: &str, value, unit| Figure { what: what.to_owned(), who, value, unit };
    [
        figure("ingest", rate, "records/s"),
        figure("size", bytes as f64 / filled.count as f64, "bytes a record"),
    ]
}

fn show(what: &str, (own, first): (&Answered, Duration), others: [(&str, Option<Answered>); 2]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (warm, first, cold) = (ms(own.warm), ms(first), ms(own.cold));
    print!("  {what:<32} {warm:>10.2} {first:>10.2} {cold:>10.2}");
    for (_, answered) in &others {
        match answered.map(|one| (ms(one.warm), ms(one.cold))) {
            Some((theirs, theirs_cold)) => {
                let (ratio, ratio_cold) = (warm / theirs, cold / theirs_cold);
                print!(" {theirs:>10.2} {theirs_cold:>10.2} {ratio:>8.2} {ratio_cold:>8.2}");
            }
            None => print!(" {:>10} {:>10} {:>8} {:>8}", "", "", "", ""),
        }
    }
    println!(" {:>13}", own.answer);
    for (who, answered) in others {
        if let Some(one) = answered.filter(|one| one.answer != own.answer) {
            println!("    answers differ: flowd {}, {who} {}", own.answer, one.answer);
        }
    }
}
