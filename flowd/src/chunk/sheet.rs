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

/// What [`encode`] wrote, of which nothing but the number of rows is read yet.
pub(super) struct Sheet<'a, const WIDTH: usize> {
    pub(super) rows: usize,
    columns: [&'a [u8]; WIDTH],
}

impl<'a, const WIDTH: usize> Sheet<'a, WIDTH> {
    /// `body` is what stands after the version; at most `most` rows.
    pub(super) fn parse(body: &'a [u8], most: usize) -> Result<Self, ChunkError> {
        let mut reader = Reader(body);
        let rows = reader.count(most)?;
        let mut columns = [&[][..]; WIDTH];
        for column in &mut columns {
            *column = reader.bytes()?;
        }
        reader.end()?;
        Ok(Self { rows, columns })
    }

    /// Puts the numbers of a column in the place of `out`.
    pub(super) fn column(
        &self,
        column: usize,
        unpacker: &mut Unpacker,
        out: &mut Vec<i64>,
    ) -> Result<(), ChunkError> {
        let blob = self.columns[column];
        out.clear();
        Numbers::parse(blob, 1)?.page(blob, 0, self.rows, unpacker, out)
    }
}
