//! Columns that fit: the least important ones go when space is short, and what is left over makes
//! names and addresses longer. Widths depend on the screen alone, so that nothing jumps.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::ctl::table::Align;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
    /// Cells that it needs.
    pub(super) least: usize,
    /// Cells that it can use.
    pub(super) most: usize,
    /// The highest rank goes first; rank 0 stays.
    pub(super) rank: u8,
}

impl Column {
    pub(super) const fn text(title: &'static str, least: usize, most: usize, rank: u8) -> Self {
        Self { title, align: Align::Left, least, most, rank }
    }

    pub(super) const fn number(title: &'static str, cells: usize, rank: u8) -> Self {
        Self { title, align: Align::Right, least: cells, most: cells, rank }
    }
}

/// The columns that fit into so many cells, by their places, with their widths.
pub(super) fn fit(columns: &[Column], cells: usize) -> Vec<(usize, usize)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    // A space between two columns.
    let needed = |kept: &[usize]| {
        kept.iter().map(|place| columns[*place].least + 1).sum::<usize>().saturating_sub(1)
    };
    while needed(&kept) > cells {
        let last = kept.iter().copied().max_by_key(|place| (columns[*place].rank, *place));
        match last.filter(|place| columns[*place].rank > 0) {
            Some(last) => kept.retain(|place| *place != last),
            None => break,
        }
    }
    let mut left = cells.saturating_sub(needed(&kept));
    let mut widths: Vec<_> = kept.into_iter().map(|place| (place, columns[place].least)).collect();
    while left > 0 {
        let mut is_given = false;
        for (place, width) in &mut widths {
            if left > 0 && *width < columns[*place].most {
                (*width, left, is_given) = (*width + 1, left - 1, true);
            }
        }
        if !is_given {
            break;
        }
    }
    widths
}

/// A text that takes exactly so many cells; what does not fit ends in `…`.
pub(super) fn cell(text: &str, cells: usize, align: Align) -> String {
    let text = shortened(text, cells);
    let space = " ".repeat(cells.saturating_sub(text.width()));
    match align {
        Align::Left => text + &space,
        Align::Right => space + &text,
    }
}

/// A text that takes so many cells at most.
pub(super) fn shortened(text: &str, cells: usize) -> String {
    if text.width() <= cells {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > cells {
            break;
        }
        short.push(character);
    }
    if cells > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr as _;

    use super::{Align, Column, cell, fit};

    const COLUMNS: [Column; 3] =
        [Column::text("NAME", 4, 10, 0), Column::text("NOTE", 5, 20, 2), Column::number("N", 3, 1)];

    #[test]
    fn the_least_important_columns_go_and_the_rest_grow() {
        for (cells, expected) in [
            (0, vec![(0, 4)]),
            (7, vec![(0, 7)]),
            (8, vec![(0, 4), (2, 3)]),
            (14, vec![(0, 4), (1, 5), (2, 3)]),
            (17, vec![(0, 6), (1, 6), (2, 3)]),
            (99, vec![(0, 10), (1, 20), (2, 3)]),
        ] {
            assert_eq!(fit(&COLUMNS, cells), expected, "{cells}");
        }
    }

    proptest! {
        #[test]
        fn a_cell_takes_its_cells(text in "[a-z界é\u{301}]{0,12}", cells in 0_usize..14) {
            for align in [Align::Left, Align::Right] {
                prop_assert_eq!(cell(&text, cells, align).width(), cells, "{:?}", text);
            }
        }
    }
}
