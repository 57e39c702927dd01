//! Where output goes, and in which form.

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::{args::Color, error::CtlError, table::Table, text::Clock};
use crate::wire::csv_text;

/// How an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people, as wide as the terminal.
    Table,
    /// For people, with every column.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

impl Output {
    pub(super) fn format(self) -> Format {
        match self {
            Self::Table | Self::Wide => Format::Table,
            Self::Json => Format::Json,
            Self::Jsonl => Format::Jsonl,
            Self::Csv => Format::Csv,
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

/// Standard output, and how it likes tables.
pub(super) struct Screen {
    out: Box<dyn Write>,
    pub(super) clock: Clock,
    pub(super) color: bool,
    /// Columns of the terminal; `None` when it is none, or they do not count.
    pub(super) width: Option<u16>,
    /// Whether tables have all of their columns.
    is_wide: bool,
}

impl Screen {
    pub(super) fn new(utc: bool, color: Color, output: Output) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        let is_wide = output == Output::Wide;
        let width = comfy_table::Table::new().width().filter(|_| terminal && !is_wide);
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            clock: Clock::new(utc),
            color,
            width,
            is_wide,
        }
    }

    #[cfg(test)]
    pub(super) fn fixed(out: Box<dyn Write>, now: crate::wire::Timestamp, width: u16) -> Self {
        Self { out, clock: Clock::fixed(now), color: false, width: Some(width), is_wide: false }
    }

    #[cfg(test)]
    pub(super) fn widen(&mut self) {
        (self.is_wide, self.width) = (true, None);
    }

    /// One object in the wanted form; `table` shows it to people.
    pub(super) fn one(
        &mut self,
        format: Format,
        answer: &impl Serialize,
        table: impl FnOnce(&mut Self) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        match format {
            Format::Table => table(self)?,
            Format::Json => self.json(answer)?,
            Format::Jsonl => self.json_line(answer)?,
            Format::Csv => self.flat_csv(std::slice::from_ref(answer))?,
        }
        Ok(self.out.flush()?)
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CtlError> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), CtlError> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    /// A header and rows.
    pub(super) fn csv(
        &mut self,
        columns: &[&str],
        rows: impl Iterator<Item = Vec<String>>,
    ) -> Result<(), CtlError> {
        let mut csv = csv::Writer::from_writer(&mut self.out);
        let write = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => CtlError::from(error),
            other => CtlError::Nonsense(format!("{other:?}")),
        };
        csv.write_record(columns).map_err(write)?;
        for row in rows {
            csv.write_record(row).map_err(write)?;
        }
        Ok(csv.flush()?)
    }

    /// Objects of one shape as rows: the names of nested fields are joined by `_`.
    pub(super) fn flat_csv(&mut self, objects: &[impl Serialize]) -> Result<(), CtlError> {
        let mut rows = Vec::new();
        for object in objects {
            let value = serde_json::to_value(object).map_err(io::Error::from)?;
            let mut row = Vec::new();
            flatten(String::new(), &value, &mut row);
            rows.push(row);
        }
        let columns: Vec<&str> =
            rows.iter().take(1).flatten().map(|(name, _)| name.as_str()).collect();
        let cells = rows.iter().map(|row| row.iter().map(|(_, cell)| cell.clone()).collect());
        self.csv(&columns, cells)
    }

    /// One row without a header, at once.
    pub(super) fn csv_line(&mut self, row: &[String]) -> Result<(), CtlError> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let written = csv.write_record(row).and_then(|()| Ok(csv.flush()?));
        written.map_err(|error| CtlError::Nonsense(error.to_string()))?;
        let bytes = csv.into_inner().map_err(|error| CtlError::Nonsense(error.to_string()))?;
        self.raw(&bytes)?;
        self.flush()
    }

    pub(super) fn table(&mut self, mut table: Table) -> Result<(), CtlError> {
        if !self.is_wide {
            table.narrow();
        }
        let text = table.render(self.color, self.width);
        self.line(&text)
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), CtlError> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// A heading above a table.
    pub(super) fn heading(&mut self, text: &str) -> Result<(), CtlError> {
        if self.color { self.line(&format!("\x1b[1m{text}\x1b[0m")) } else { self.line(text) }
    }

    /// Bytes as they came.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), CtlError> {
        Ok(self.out.write_all(bytes)?)
    }

    pub(super) fn flush(&mut self) -> Result<(), CtlError> {
        Ok(self.out.flush()?)
    }
}

/// The leaves of a value with their paths; a list is one leaf, as JSON.
fn flatten(path: String, value: &Value, leaves: &mut Vec<(String, String)>) {
    let cell = match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}_{name}") };
                flatten(path, field, leaves);
            }
            return;
        }
        Value::Null => String::new(),
        Value::String(text) => csv_text(text),
        other => other.to_string(),
    };
    leaves.push((path, cell));
}

/// Standard output of a test.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::flatten;

    #[test]
    fn leaves_have_the_names_of_their_path() {
        let value = json!({ "a": { "b": 1, "c": "=x" }, "d": null, "e": [1, 2] });
        let mut leaves = Vec::new();
        flatten(String::new(), &value, &mut leaves);
        let leaves: Vec<_> = leaves.iter().map(|(name, cell)| (&**name, &**cell)).collect();
        assert_eq!(leaves, [("a_b", "1"), ("a_c", "'=x"), ("d", ""), ("e", "[1,2]")]);
    }
}
