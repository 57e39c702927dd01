//! Comma-separated values: every field, with the columns of `/v1/records` and safe to open in a
//! spreadsheet.

use crate::wire::{CSV_COLUMNS, Record, csv_row};

/// The names of the columns.
pub(super) fn header() -> Vec<u8> {
    let mut line = Vec::new();
    row(CSV_COLUMNS, &mut line);
    line
}

/// One record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    row(csv_row(record), out);
}

fn row(cells: impl IntoIterator<Item = impl AsRef<[u8]>>, out: &mut Vec<u8>) {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(cells).expect("a vector takes every byte");
    writer.flush().expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::{header, write};
    use crate::export::sample;

    /// The cells of one record by column.
    fn cell(record: &crate::wire::Record, column: &str) -> String {
        let mut text = header();
        write(record, &mut text);
        let mut reader = csv::Reader::from_reader(&text[..]);
        let at = reader.headers().unwrap().iter().position(|name| name == column).unwrap();
        let row = reader.records().next().unwrap().unwrap();
        row[at].to_owned()
    }

    #[test]
    fn names_are_one_cell_and_no_formula() {
        let cases = [
            ("a \"quoted\", name", "a \"quoted\", name"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
        ];
        for (name, expected) in cases {
            let record = sample::named(name);
            assert_eq!(cell(&record, "peer_name"), expected);
            assert_eq!(cell(&record, "src_peer"), expected);
            assert_eq!(cell(&record, "rule"), expected);
            assert_eq!(cell(&record, "peer_groups"), expected);
        }
    }

    #[test]
    fn what_is_not_known_is_an_empty_cell() {
        let record = sample::overflow();
        for column in ["src_ip", "src_port", "dst_ip", "icmp_type", "rule", "end_reason"] {
            assert_eq!(cell(&record, column), "", "{column}");
        }
        assert_eq!(cell(&record, "overflow"), "true");
        assert_eq!(cell(&record, "rx_bytes"), "1200");
    }
}
