//! A small table: some columns of numbers of one length, read as a whole.

use super::{
    ChunkError, VERSION,
    bytes::{Reader, put_bytes, put_varint},
    numbers::{self, Numbers},
    plane::{Packer, Unpacker},
};

/// Rows of `WIDTH` numbers as one blob, version included.
pub(super) fn encode<const WIDTH: usize>(rows: &[[i64; WIDTH]], packer: &mut Packer) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, rows.len() as u64);
    for column in 0..WIDTH {
        let values: Vec<i64> = rows.iter().map(|row| row[column]).collect();
        let mut blob = Vec::new();
        numbers::encode(&values, &[rows.len()], packer, &mut blob);
        put_bytes(&mut out, &blob);
    }
    out
}

/// Reads what [`encode`] wrote after its version; at most `most` rows.
pub(super) fn decode<const WIDTH: usize>(
    body: &[u8],
    most: usize,
    unpacker: &mut Unpacker,
) -> Result<Vec<[i64; WIDTH]>, ChunkError> {
    let mut reader = Reader(body);
    let count = reader.count(most)?;
    let mut rows = vec![[0; WIDTH]; count];
    let mut values = Vec::new();
    for column in 0..WIDTH {
        let blob = reader.bytes()?;
        values.clear();
        Numbers::parse(blob, 1)?.page(blob, 0, count, unpacker, &mut values)?;
        for (row, value) in rows.iter_mut().zip(&values) {
            row[column] = *value;
        }
    }
    reader.end()?;
    Ok(rows)
}
