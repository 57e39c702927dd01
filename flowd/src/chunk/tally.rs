//! Sums over the selected records of a page, whole or by groups.

use super::{ChunkError, Code, ColumnId, ColumnSet, Number, Page, Selection, Sum};
use crate::flows::Counters;

/// The columns that [`tally`] reads.
pub fn tally_columns() -> ColumnSet {
    use ColumnId::{Kind, Kinds, RxBytes, RxPackets, State, States, TxBytes, TxPackets};
    [States, State, Kinds, Kind, RxPackets, RxBytes, TxPackets, TxBytes].into_iter().collect()
}

/// What the selected records add up to. Overflow counts no flow.
pub fn tally(page: &Page<'_>, selection: &Selection) -> Result<Sum, ChunkError> {
    let total = |number| Ok(sum(page.numbers(number)?, selection));
    let kinds = page.chunk().kinds()?;
    let codes = page.codes(Code::Kind)?;
    let opens = page.opens()?;
    let flow = |at: &usize| opens[*at] && !kinds[codes[*at] as usize].overflow;
    Ok(Sum {
        records: selection.count(page.rows()) as u64,
        flows: selection.iter(page.rows()).filter(flow).count() as u64,
        counters: Counters {
            rx_packets: total(Number::RxPackets)?,
            rx_bytes: total(Number::RxBytes)?,
            tx_packets: total(Number::TxPackets)?,
            tx_bytes: total(Number::TxBytes)?,
        },
    })
}

/// The sum of the selected values; beyond 64 bits it wraps around.
pub fn sum(values: &[i64], selection: &Selection) -> u64 {
    let sum = match selection {
        Selection::Nothing => 0,
        Selection::All => values.iter().copied().fold(0, i64::wrapping_add),
        Selection::Some(wanted) => values
            .iter()
            .zip(wanted)
            .fold(0, |sum: i64, (value, wanted)| sum.wrapping_add(value & -i64::from(*wanted))),
    };
    sum.cast_unsigned()
}

/// Adds the selected values to the sums of their codes; `sums` grows as far as codes go.
pub fn sum_by(codes: &[u32], values: &[i64], selection: &Selection, sums: &mut Vec<u64>) {
    let Some(most) = codes.iter().max() else { return };
    let most = *most as usize;
    if sums.len() <= most {
        sums.resize(most + 1, 0);
    }
    let mut add = |code: u32, value: i64| {
        let sum = &mut sums[code as usize];
        *sum = sum.wrapping_add(value.cast_unsigned());
    };
    let both = codes.iter().zip(values);
    match selection {
        Selection::Nothing => {}
        Selection::All => both.for_each(|(code, value)| add(*code, *value)),
        Selection::Some(wanted) => both
            .zip(wanted)
            .for_each(|((code, value), wanted)| add(*code, value & -i64::from(*wanted))),
    }
}

/// Counts the selected records of each code; `counts` grows as far as codes go.
pub fn count_by(codes: &[u32], selection: &Selection, counts: &mut Vec<u64>) {
    let ones = vec![1; codes.len()];
    sum_by(codes, &ones, selection, counts);
}
