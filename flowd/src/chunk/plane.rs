//! A byte a value, packed: one byte where all are equal, zstd where it helps, else as they are.

use std::cell::RefCell;

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::CParameter,
};

use super::{
    ChunkError,
    bytes::{Reader, put_bytes},
    error::damaged,
};

/// Higher levels take two to five times as long and save nothing; 19 saves a twentieth of some
/// planes and takes five hundred times as long.
const LEVEL: i32 = 1;
/// Bytes of a repetition at least. Bins repeat by chance: shorter ones take more than their bytes,
/// and twice the time to read.
const LEAST_MATCH: u32 = 7;

const EQUAL: u8 = 0;
const PLAIN: u8 = 1;
const ZSTD: u8 = 2;

/// What writing needs and can be used again.
pub(super) struct Packer {
    zstd: Compressor<'static>,
    room: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> Self {
        let mut zstd = Compressor::new(LEVEL).expect("the level is one that zstd has");
        let told = zstd.set_parameter(CParameter::MinMatch(LEAST_MATCH));
        told.expect("zstd looks for repetitions of 3 to 7 bytes");
        Self { zstd, room: Vec::new() }
    }

    /// Appends the plane.
    pub(super) fn pack(&mut self, plane: &[u8], out: &mut Vec<u8>) {
        let first = plane.first().copied().unwrap_or(0);
        if plane.iter().all(|byte| *byte == first) {
            out.extend([EQUAL, first]);
            return;
        }
        self.room.resize(plane.len(), 0);
        // It fails where the result does not fit, which is where it does not help.
        match self.zstd.compress_to_buffer(plane, self.room.as_mut_slice()) {
            Ok(len) if len < plane.len() => {
                out.push(ZSTD);
                put_bytes(out, &self.room[..len]);
            }
            _ => {
                out.push(PLAIN);
                out.extend_from_slice(plane);
            }
        }
    }
}

thread_local! {
    /// Making one takes longer than most planes do.
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::new(
        Decompressor::new().expect("there is memory for zstd's tables"),
    );
}

/// What reading needs and can be used again.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    plane: Vec<u8>,
}

/// A plane as it was.
pub(super) enum Plane<'a> {
    /// All values are this one.
    Equal(u8),
    /// A byte a value.
    Each(&'a [u8]),
}

impl Unpacker {
    /// Reads a plane of so many bytes, and no more than that many.
    pub(super) fn unpack<'a>(
        &'a mut self,
        count: usize,
        reader: &mut Reader<'a>,
    ) -> Result<Plane<'a>, ChunkError> {
        match reader.byte()? {
            EQUAL => Ok(Plane::Equal(reader.byte()?)),
            PLAIN => Ok(Plane::Each(reader.take(count)?)),
            ZSTD => {
                let packed = reader.bytes()?;
                self.plane.resize(count, 0);
                let plane = self.plane.as_mut_slice();
                match DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(packed, plane))
                {
                    Ok(len) if len == count => Ok(Plane::Each(&self.plane)),
                    _ => damaged("zstd refuses a part of it"),
                }
            }
            _ => damaged("a part is packed in an unknown way"),
        }
    }
}
