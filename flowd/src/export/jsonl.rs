//! JSON lines: records as `/v1/records` has them, nothing lost.

use super::write_json;
use crate::wire::Record;

/// One record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    write_json(record, out);
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::{export::sample, wire::Record};

    #[test]
    fn a_record_survives_the_round_trip() {
        for (what, record) in sample::all() {
            let mut line = Vec::new();
            write(&record, &mut line);
            assert_eq!(serde_json::from_slice::<Record>(&line).unwrap(), record, "{what}");
        }
    }
}
