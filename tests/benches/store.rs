//! The store by the crate's own writer and reader: records a second, bytes a record, and how long
//! questions take, warm and with nothing of the files in memory, beside DuckDB on the same records.
//!
//! `FLOWD_BENCH_LARGE=1` adds a hundred million records, `FLOWD_BENCH_RECORDS=1000000` has other
//! sizes, `FLOWD_BENCH_QUESTION=port` asks only what is called so.

#[path = "store/duckdb.rs"]
mod duckdb;
#[path = "store/filled.rs"]
mod filled;
#[path = "chunk/generate.rs"]
mod generate;
#[path = "store/names.rs"]
mod names;
#[path = "store/questions.rs"]
mod questions;

use std::{error::Error, process::ExitCode, time::Duration};

use filled::Filled;
use flowd::{chunk::Row, flows};
use questions::Answered;
use serde_json::{Value, json};

const SIZES: [usize; 2] = [1_000_000, 10_000_000];
const LARGE: usize = 100_000_000;
const FLOWD: &str = "flowd";
const DUCKDB: &str = "DuckDB";
/// Its collector takes NetFlow from a network and reads its own files only.
const NFDUMP: &str = "nfdump";

fn main() -> ExitCode {
    // `cargo test` runs benches with `--test`: there is nothing to assert in a time.
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
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
    let filled = Filled::new(size)?;
    let mut questions = questions::all(&filled.facts);
    if let Ok(wanted) = std::env::var("FLOWD_BENCH_QUESTION") {
        questions.retain(|question| question.what.contains(&wanted));
    }
    let mut figures = of_ingest(&filled);
    let told = duckdb::ask(&filled, &questions)?;
    if let Some(told) = &told {
        let figure =
            |what: &str, value, unit| Figure { what: what.to_owned(), who: DUCKDB, value, unit };
        figures.push(figure("ingest", filled.count as f64 / told.load_s, "records/s"));
        figures.push(figure("size", told.bytes as f64 / filled.count as f64, "bytes a record"));
    }
    for figure in &figures {
        let Figure { what, who, value, unit } = figure;
        println!("  {who:<7} {what:<32} {value:>14.1} {unit}");
    }
    println!("  flowd: durable commits of 10,000; DuckDB: one bulk load");
    let version = told.as_ref().map(|told| told.version.as_str());
    let beside = version.map_or("absent".to_owned(), |version| format!("{version}, in Python"));
    println!("  DuckDB: {beside}; {NFDUMP}: {}\n", nfdump());
    println!(
        "  {:<32} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "milliseconds", "flowd", "cold", "DuckDB", "cold", "ratio", "cold"
    );
    let mut theirs = told.iter().flat_map(|told| told.answers());
    for question in &questions {
        let own = question.ask(&filled)?;
        let their = theirs.next();
        show(question.what, &own, their.as_ref());
        figures.extend(questions::figures(question.what, FLOWD, &own));
        figures.extend(
            their.iter().flat_map(|their| questions::figures(question.what, DUCKDB, their)),
        );
    }
    for (what, took) in filled.seal()? {
        let value = took.cpu.as_secs_f64() * 1e9 / filled.count as f64;
        println!("  {what:<32} {value:>10.0} ns of a core for each record");
        figures.push(Figure { what: what.to_owned(), who: FLOWD, value, unit: "ns a record" });
    }
    println!();
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

fn show(what: &str, own: &Answered, their: Option<&Answered>) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (warm, cold) = (ms(own.warm), ms(own.cold));
    print!("  {what:<32} {warm:>10.2} {cold:>10.2}");
    match their {
        Some(their) => {
            let (their_warm, their_cold) = (ms(their.warm), ms(their.cold));
            let (ratio, cold) = (warm / their_warm, cold / their_cold);
            println!(" {their_warm:>10.2} {their_cold:>10.2} {ratio:>8.2} {cold:>8.2}");
            if their.answer != own.answer {
                println!("    answers differ: flowd {}, DuckDB {}", own.answer, their.answer);
            }
        }
        None => println!(),
    }
}

fn nfdump() -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| directory.join(NFDUMP).is_file()) {
        "installed, not measured: it reads the files of its own collector only"
    } else {
        "absent"
    }
}
