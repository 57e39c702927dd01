//! A byte a value, packed: one byte where all are equal, zstd where it helps, else as they are.

use std::{
    cell::RefCell,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

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

/// The planes of a column that zstd had packed, each from when it was read first; none unless somebody
/// wants them kept.
#[derive(Debug)]
pub(super) struct Planes {
    are_kept: AtomicBool,
    kept: Box<[OnceLock<Box<[u8]>>]>,
}

impl Planes {
    /// So many, none of which is kept yet.
    pub(super) fn new(count: usize) -> Self {
        let kept = (0..count).map(|_| OnceLock::new()).collect();
        Self { are_kept: AtomicBool::new(false), kept }
    }

    /// The memory that it takes while none is kept.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.kept[..])
    }

    /// From now on they are kept.
    pub(super) fn keep(&self) {
        self.are_kept.store(true, Ordering::Relaxed);
    }

    /// Where one of them is, if it is to be kept.
    pub(super) fn place(&self, number: usize) -> Option<&OnceLock<Box<[u8]>>> {
        self.kept.get(number).filter(|_| self.are_kept.load(Ordering::Relaxed))
    }
}

/// Whether a plane that is read from these bytes would be kept.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&ZSTD)
}

impl Unpacker {
    /// Reads a plane of so many bytes, and no more than that many, or takes it from where it is kept: a
    /// column's page has as many each time.
    pub(super) fn unpack<'a>(
        &'a mut self,
        count: usize,
        reader: &mut Reader<'a>,
        kept: Option<&'a OnceLock<Box<[u8]>>>,
    ) -> Result<Plane<'a>, ChunkError> {
        match reader.byte()? {
            EQUAL => Ok(Plane::Equal(reader.byte()?)),
            PLAIN => Ok(Plane::Each(reader.take(count)?)),
            ZSTD => {
                let packed = reader.bytes()?;
                if let Some(plane) = kept.and_then(OnceLock::get) {
                    return Ok(Plane::Each(plane));
                }
                self.plane.resize(count, 0);
                let plane = self.plane.as_mut_slice();
                match DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(packed, plane))
                {
                    Ok(len) if len == count => Ok(Plane::Each(match kept {
                        Some(kept) => kept.get_or_init(|| self.plane[..].into()),
                        None => &self.plane,
                    })),
                    _ => damaged("zstd refuses a part of it"),
                }
            }
            _ => damaged("a part is packed in an unknown way"),
        }
    }
}
