//! Tables without lines, as `ss` and `kubectl` have them. A row is never wrapped: on a narrow
//! terminal the least important columns go.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, presets::NOTHING};

/// How a cell stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Dim,
}

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl<T: Into<String>> From<T> for Value {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Value {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

/// Which side a column leans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// The rank of a column that only a wide table has.
pub(super) const WIDE: u8 = u8::MAX;

/// A column: its title, its side, and its rank; the highest rank goes first when space is short,
/// rank 0 stays.
pub(super) type Column = (&'static str, Align, u8);

/// Rows under a header.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<(String, Align, u8)>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        let columns =
            columns.iter().map(|(title, align, rank)| ((*title).to_owned(), *align, *rank));
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Columns that came with their rows; none of them goes.
    pub(super) fn titled(titles: impl Iterator<Item = (String, Align)>) -> Self {
        Self { columns: titles.map(|(title, align)| (title, align, 0)).collect(), rows: Vec::new() }
    }

    /// Says in the title of a column which zone its times are in.
    pub(super) fn zone(&mut self, column: &str, zone: &str) {
        for (title, ..) in &mut self.columns {
            if title == column {
                *title = format!("{column} ({zone})");
            }
        }
    }

    pub(super) fn row(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Without the columns that only a wide table has.
    pub(super) fn narrow(&mut self) {
        while let Some(index) = self.columns.iter().position(|(.., rank)| *rank == WIDE) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        self.columns.remove(index);
        for row in &mut self.rows {
            row.remove(index);
        }
    }

    pub(super) fn render(mut self, color: bool, width: Option<u16>) -> String {
        loop {
            let table = self.build(color);
            let wide: u16 = table
                .column_max_content_widths()
                .iter()
                .map(|content| content + 2)
                .fold(0, u16::saturating_add);
            let fits = width.is_none_or(|width| wide <= width.saturating_add(2));
            let last =
                self.columns.iter().enumerate().max_by_key(|(index, (.., rank))| (*rank, *index));
            match last {
                Some((index, (.., rank))) if !fits && *rank > 0 => {
                    self.remove(index);
                }
                _ => {
                    let lines: Vec<_> =
                        table.lines().map(|line| line.trim_end().to_owned()).collect();
                    return lines.join("\n");
                }
            }
        }
    }

    fn build(&self, color: bool) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(
            self.columns.iter().map(|(title, ..)| Cell::new(title).add_attribute(Attribute::Bold)),
        );
        for row in &self.rows {
            table.add_row(row.iter().map(cell));
        }
        for (column, (_, align, _)) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        table
    }
}

fn cell(value: &Value) -> Cell {
    let cell = Cell::new(&value.text);
    match value.tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(comfy_table::Color::Green),
        Tone::Bad => cell.fg(comfy_table::Color::Red),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
    }
}

#[cfg(test)]
mod tests {
    use super::{Align, Table};

    fn table() -> Table {
        let mut table = Table::new(&[
            ("NAME", Align::Left, 0),
            ("NOTE", Align::Left, 2),
            ("BYTES", Align::Right, 1),
        ]);
        table.row(vec!["alice".into(), "a long note that needs room".into(), "7".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_numbers_lean_right() {
        assert_eq!(
            table().render(false, None),
            "NAME   NOTE                         BYTES\nalice  a long note that needs room      7"
        );
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_column() {
        assert_eq!(table().render(false, Some(20)), "NAME   BYTES\nalice      7");
        assert_eq!(table().render(false, Some(3)), "NAME\nalice");
    }
}
