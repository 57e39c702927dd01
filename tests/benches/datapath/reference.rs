//! What flowd's programs are compared with, assembled by hand: an empty classifier, and one that
//! looks a constant key up in a hash and adds to two counters of its value.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use bytemuck::{Pod, Zeroable};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_FUNC_MAP_LOOKUP_ELEM: i32 = 1;

const KEY_BYTES: u32 = 44;
const VALUE_BYTES: u32 = 72;

/// `struct bpf_insn` in `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: src << 4 | dst, offset, immediate }
}

const MOV_IMMEDIATE: u8 = 0xb7;
const MOV: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const STORE_IMMEDIATE_WORD: u8 = 0x62;
const LOAD_MAP: u8 = 0x18;
const CALL: u8 = 0x85;
const JUMP_IF_ZERO: u8 = 0x15;
const ATOMIC_ADD: u8 = 0xdb;
const EXIT: u8 = 0x95;

/// Both reference programs, loaded.
pub(crate) struct Reference {
    empty: OwnedFd,
    bare: OwnedFd,
    _map: OwnedFd,
}

impl Reference {
    /// Loads them; the hash has the size and the load of flowd's own in the bench.
    pub(crate) fn load() -> io::Result<Self> {
        let map = create_map()?;
        let key = [0_u8; KEY_BYTES as usize];
        let value = [0_u8; VALUE_BYTES as usize];
        let attr: [u64; 4] =
            [map.as_raw_fd() as u64, key.as_ptr() as u64, value.as_ptr() as u64, 0];
        bpf(BPF_MAP_UPDATE_ELEM, bytemuck::cast_slice(&attr))?;
        let empty = load_program(&[op(MOV_IMMEDIATE, 0, 0, 0, -1), op(EXIT, 0, 0, 0, 0)])?;
        let bare = load_program(&bare_program(&map))?;
        Ok(Self { empty, bare, _map: map })
    }

    /// Mean time of a run of the empty program.
    pub(crate) fn run_empty(&self, frame: &[u8], repeat: u32) -> io::Result<Duration> {
        test_run(&self.empty, frame, repeat)
    }

    /// Mean time of a run of the bare reference.
    pub(crate) fn run_bare(&self, frame: &[u8], repeat: u32) -> io::Result<Duration> {
        test_run(&self.bare, frame, repeat)
    }
}

fn bare_program(map: &OwnedFd) -> Vec<Instruction> {
    let mut program = Vec::new();
    // The key: eleven words of zero on the stack.
    for word in 0..KEY_BYTES as i16 / 4 {
        program.push(op(STORE_IMMEDIATE_WORD, 10, 0, -(KEY_BYTES as i16) + word * 4, 0));
    }
    program.extend([
        op(MOV, 2, 10, 0, 0),
        op(ADD_IMMEDIATE, 2, 0, 0, -(KEY_BYTES as i32)),
        // A 64-bit load takes two slots; source register 1 marks a map's descriptor.
        op(LOAD_MAP, 1, 1, 0, map.as_raw_fd()),
        op(0, 0, 0, 0, 0),
        op(CALL, 0, 0, 0, BPF_FUNC_MAP_LOOKUP_ELEM),
        op(JUMP_IF_ZERO, 0, 0, 4, 0),
        op(MOV_IMMEDIATE, 1, 0, 0, 1),
        op(ATOMIC_ADD, 0, 1, 16, 0),
        op(MOV_IMMEDIATE, 1, 0, 0, 1420),
        op(ATOMIC_ADD, 0, 1, 24, 0),
        op(MOV_IMMEDIATE, 0, 0, 0, -1),
        op(EXIT, 0, 0, 0, 0),
    ]);
    program
}

fn create_map() -> io::Result<OwnedFd> {
    let entries = flowd_common::limits::DEFAULT_FLOWS;
    let attr = [BPF_MAP_TYPE_HASH, KEY_BYTES, VALUE_BYTES, entries, 0, 0, 0, 0];
    bpf_fd(BPF_MAP_CREATE, bytemuck::cast_slice(&attr))
}

fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let attr: [u64; 6] = [
        u64::from(BPF_PROG_TYPE_SCHED_CLS) | (program.len() as u64) << 32,
        program.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        0,
    ];
    bpf_fd(BPF_PROG_LOAD, bytemuck::cast_slice(&attr))
}

/// The `test` member of `union bpf_attr`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx: [u64; 3],
    flags_and_cpu: u64,
}

fn test_run(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<Duration> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestRun::zeroed()
    };
    // SAFETY: the attribute points to memory that lives through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_nanos(u64::from(attr.duration)))
}

fn bpf(command: libc::c_long, attr: &[u8]) -> io::Result<libc::c_long> {
    // SAFETY: callers pass an attribute whose pointers live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), attr.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd(command: libc::c_long, attr: &[u8]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
