//! What is wrong with a configuration file, in one line each.

use std::{
    fmt, io,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};

use super::file::KEYS;
use crate::nearest::nearest;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read configuration {}: {source}", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says something that flowd does not understand. One problem a line.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// Where it is.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn lines(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<_> =
        problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect();
    lines.join("\n")
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    line: Option<usize>,
    text: String,
}

impl Problem {
    pub(super) fn new(text: String) -> Self {
        Self { line: None, text }
    }

    /// What the TOML parser said, with the line it said it of.
    pub(super) fn of_toml(file: &str, span: Option<Range<usize>>, text: &str) -> Self {
        let before = span.and_then(|span| file.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let text = plain(text.lines().next().unwrap_or_default());
        let said_of = line
            .and_then(|line| file.lines().nth(line - 1))
            .map(|line| format!("`{}`: ", line.trim().replace(char::is_control, "?")));
        Self { line, text: format!("{}{text}", said_of.unwrap_or_default()) }
    }

    pub(super) fn out_of_range(key: &str, value: u64, range: &RangeInclusive<u64>) -> Self {
        Self::new(format!("`{key}` is {value}; it must be {} to {}", range.start(), range.end()))
    }

    pub(super) fn too_long(key: &str, path: &Path, max: usize) -> Self {
        let bytes = path.as_os_str().len();
        Self::new(format!("`{key}` has {bytes} bytes; a socket's path has {max} at most"))
    }

    pub(super) fn relative(key: &str, path: &Path) -> Self {
        let path = path.to_string_lossy();
        Self::new(format!("`{key}` is `{}`; it must be an absolute path", path.escape_debug()))
    }
}

/// The parser's words for types, in those of a configuration's author.
fn plain(text: &str) -> String {
    let Some((said, expected)) = text.split_once("expected ") else {
        return text.to_owned();
    };
    let expected = match expected {
        "a sequence" => "a list such as [\"wg0\"]",
        "u64" => "a whole number",
        "path string" => "a string",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{said}expected {expected}")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// Refuses keys that flowd does not know and names the nearest one that it does.
pub(super) fn unknown_keys(text: &str) -> Result<(), Vec<Problem>> {
    let Ok(document) = text.parse::<toml::Table>() else {
        // Not TOML at all: the parser that follows says where.
        return Ok(());
    };
    let mut problems = Vec::new();
    for (table, known) in KEYS {
        let keys = match table {
            &"" => Some(&document),
            table => document.get(*table).and_then(toml::Value::as_table),
        };
        for key in keys.into_iter().flat_map(toml::Table::keys) {
            if !known.contains(&key.as_str()) {
                problems.push(unknown_key(text, table, key, known));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn unknown_key(text: &str, table: &str, key: &str, known: &[&str]) -> Problem {
    let remedy = match nearest(key, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known here are {}", known.join(", ")),
    };
    let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    let line = text.lines().position(|line| {
        let line = line.trim_start().trim_start_matches('[').trim_start_matches(['"', '\'']);
        line.starts_with(key)
    });
    Problem { line: line.map(|line| line + 1), text: format!("unknown key `{path}`; {remedy}") }
}
