//! `flowctl sql`: a statement of one's own, and the tables that it may read.

use std::io::Read as _;

use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::Value as Json;

use super::{
    client::Client,
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Value},
    text,
};
use crate::wire::{SqlRows, SqlTables};

const PATH: &str = "/v1/sql";
/// Rows that a table shows unless asked for more.
const DEFAULT: u64 = 1_000;

/// What to ask.
#[derive(Clone, Debug, Args)]
pub(super) struct Sql {
    /// One SELECT; - for standard input.
    #[arg(value_name = "STATEMENT")]
    words: Vec<String>,
    /// How many rows at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Asks, and shows the answer in the wanted form.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    asked: &Sql,
) -> Result<(), CtlError> {
    let text = match asked.words.as_slice() {
        [] => {
            let answer: SqlTables = client.get(PATH, &[]).await?;
            return tables(screen, format, &answer);
        }
        [dash] if dash == "-" => standard_input()?,
        words => words.join(" "),
    };
    let (limit, accept) = match format {
        Format::Table => (Some(asked.limit.unwrap_or(DEFAULT)), "application/json"),
        Format::Json => (asked.limit, "application/json"),
        Format::Jsonl => (asked.limit, "application/x-ndjson"),
        Format::Csv => (asked.limit, "text/csv"),
    };
    let pairs: Vec<_> = limit.map(|limit| ("limit", limit.to_string())).into_iter().collect();
    let mut body = client.post(PATH, &pairs, ("application/sql", text), accept).await?;
    if format == Format::Table {
        let answer = body.collect().await?.to_bytes();
        let answer = serde_json::from_slice(&answer)
            .map_err(|error| CtlError::Nonsense(error.to_string()))?;
        return show(screen, &answer);
    }
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            screen.raw(&data)?;
        }
    }
    screen.flush()
}

fn standard_input() -> Result<String, CtlError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map(|_| text).map_err(|source| CtlError::Read { path: "standard input".into(), source })
}

fn tables(screen: &mut Screen, format: Format, answer: &SqlTables) -> Result<(), CtlError> {
    match format {
        Format::Json => screen.json(answer)?,
        Format::Jsonl => {
            answer.tables.iter().try_for_each(|table| screen.json_line(table))?;
        }
        Format::Csv => {
            let rows = answer.tables.iter().flat_map(|table| {
                table.columns.iter().map(|column| {
                    [&table.name, &column.name, &column.r#type, &column.about].map(Clone::clone)
                })
            });
            screen.csv(&["table", "column", "type", "about"], rows.map(Into::into))?;
        }
        Format::Table => {
            for table in &answer.tables {
                screen.heading(&format!("{}: {}", table.name, table.about))?;
                let titles = ["COLUMN", "TYPE", "WHAT"].map(|title| (title, Align::Left, 0));
                let mut shown = Table::new(&titles);
                for column in &table.columns {
                    let cells = [&column.name, &column.r#type, &column.about];
                    shown.row(cells.map(|cell| text::visible(cell).into()).into());
                }
                screen.table(shown)?;
                screen.line("")?;
            }
            screen
                .line("Times are Unix milliseconds: instant('24h') makes one, utc(ms) a date.")?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, answer: &SqlRows) -> Result<(), CtlError> {
    let SqlRows { columns, rows, more } = answer;
    let is_number = |row: &Vec<Json>, index| {
        row.get(index).is_some_and(|cell: &Json| cell.is_number() || cell.is_null())
    };
    let titles = columns.iter().enumerate().map(|(index, name)| {
        let numbers = rows.iter().all(|row| is_number(row, index));
        (text::visible(name), if numbers { Align::Right } else { Align::Left })
    });
    let mut table = Table::titled(titles);
    for row in rows {
        table.row(row.iter().map(cell).collect());
    }
    screen.table(table)?;
    if *more {
        let count = rows.len();
        screen.line(&format!(
            "These are the first {count} rows; --limit N shows more, -o csv every one."
        ))?;
    }
    screen.flush()
}

fn cell(value: &Json) -> Value {
    match value {
        Json::Null => "-".into(),
        Json::String(string) => text::visible(string).into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{SqlRows, show};
    use crate::{
        ctl::output::{Screen, Sink},
        wire::Timestamp,
    };

    fn shown(rows: &SqlRows) -> String {
        let sink = Sink::default();
        let mut screen = Screen::fixed(Box::new(sink.clone()), Timestamp(0), 10);
        show(&mut screen, rows).unwrap();
        sink.text()
    }

    #[test]
    fn numbers_lean_right_nothing_is_a_dash_and_no_text_is_obeyed() {
        let rows = vec![
            vec![json!("al\u{1b}[2Jice"), json!(7), json!(null)],
            vec![json!("bob"), json!(1_234_567), json!(0.5)],
        ];
        let columns = ["peer_name", "b\ny", "mean"].map(str::to_owned).to_vec();
        let answer = SqlRows { columns, rows, more: false };
        // However narrow the terminal is.
        let expected = "peer_name      b\\x0ay  mean\n\
            al\\x1b[2Jice        7     -\n\
            bob           1234567   0.5\n";
        assert_eq!(shown(&answer), expected);
        let told = shown(&SqlRows { more: true, ..answer });
        assert!(told.ends_with("the first 2 rows; --limit N shows more, -o csv every one.\n"));
    }

    #[test]
    fn an_answer_without_rows_has_its_titles() {
        let answer = SqlRows { columns: vec!["a".to_owned()], rows: vec![], more: false };
        assert_eq!(shown(&answer), "a\n");
    }
}
