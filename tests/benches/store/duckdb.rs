//! DuckDB on the same records, where a Python has it: bulk-loaded from Parquet, asked in one
//! process.

use std::{
    error::Error,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::{
    filled::Filled,
    questions::{Answered, Question},
};

const SCRIPT: &str = include_str!("duckdb.py");

/// What it told.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) version: String,
    pub(super) load_s: f64,
    pub(super) bytes: u64,
    answers: Vec<Times>,
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

/// Loads and asks; `None` where nobody has it.
pub(super) fn ask(filled: &Filled, questions: &[Question]) -> Result<Option<Told>, Box<dyn Error>> {
    let Some(python) = python() else { return Ok(None) };
    let task = json!({
        "database": filled.directory.path().join("records.duckdb"),
        "parquet": filled.parquet(),
        "questions": questions.iter().map(|one| one.duckdb.as_str()).collect::<Vec<_>>(),
    });
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().ok_or("it is piped")?;
    input.write_all(task.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("DuckDB: {}", output.status).into());
    }
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

impl Told {
    /// To the question of this number.
    pub(super) fn answer(&self, index: usize) -> Answered {
        let Times { answer, warm_ms, cold_ms } = self.answers[index];
        let time = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        Answered { answer, warm: time(warm_ms), cold: time(cold_ms) }
    }
}
