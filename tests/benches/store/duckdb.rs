//! DuckDB on the same records, where a Python has it: bulk-loaded from Parquet, asked in one
//! process, each question right behind flowd.

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    filled::Filled,
    questions::{Answered, Question},
};

const SCRIPT: &str = include_str!("duckdb.py");

/// A process that has the records.
pub(super) struct DuckDb {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    pub(super) loaded: Loaded,
}

/// What loading took.
#[derive(Debug, Deserialize)]
pub(super) struct Loaded {
    pub(super) version: String,
    pub(super) load_s: f64,
    pub(super) bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Times {
    answer: u64,
    warm_ms: f64,
    cold_ms: f64,
}

/// A Python with DuckDB: the one in `FLOWD_BENCH_PYTHON`, else the one that is there.
fn python() -> Option<String> {
    let told = std::env::var("FLOWD_BENCH_PYTHON").ok();
    told.into_iter().chain(["python3".to_owned()]).find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import duckdb"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

impl DuckDb {
    /// Loads; `None` where nobody has it.
    pub(super) fn load(filled: &Filled) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(python) = python() else { return Ok(None) };
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().ok_or("it is piped")?;
        let mut output = BufReader::new(child.stdout.take().ok_or("it is piped")?).lines();
        let task = json!({
            "database": filled.directory.path().join("records.duckdb"),
            "parquet": filled.parquet(),
        });
        let loaded = told(&mut input, &mut output, &task)?;
        Ok(Some(Self { child, input, output, loaded }))
    }

    /// Asks until the medians are known.
    pub(super) fn ask(&mut self, question: &Question) -> Result<Answered, Box<dyn Error>> {
        let Self { input, output, .. } = self;
        let Times { answer, warm_ms, cold_ms } =
            told(input, output, &Value::from(question.duckdb.as_str()))?;
        let time = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        Ok(Answered { answer, warm: time(warm_ms), cold: time(cold_ms) })
    }

    /// Nothing more is asked.
    pub(super) fn end(self) -> Result<(), Box<dyn Error>> {
        let Self { mut child, input, output, loaded: _ } = self;
        drop((input, output));
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("DuckDB: {status}").into()) }
    }
}

fn told<T: DeserializeOwned>(
    input: &mut ChildStdin,
    output: &mut Lines<BufReader<ChildStdout>>,
    line: &Value,
) -> Result<T, Box<dyn Error>> {
    writeln!(input, "{line}")?;
    let line = output.next().ok_or("DuckDB has ended before its time")??;
    Ok(serde_json::from_str(&line)?)
}
