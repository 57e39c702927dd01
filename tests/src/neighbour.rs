//! Somebody else's tcx program on an interface: it does one thing with every packet.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use flowd::wireguard;
use flowd_common::counter::Direction;

use crate::{
    detach::{attach_type, bpf},
    namespace::Namespace,
};

/// `BPF_PROG_LOAD` of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
/// `BPF_LINK_CREATE` there.
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_SCHED_CLS` of `enum bpf_prog_type` there.
const SCHED_CLS: u32 = 3;
/// `r0 = imm` and `exit`.
const MOV_R0: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// What the program does with a packet: `enum tcx_action_base` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next program has a look.
    Next = -1,
    /// It passes, and no other program has a look.
    Pass = 0,
    /// It is dropped.
    Drop = 2,
}

/// Where it hangs: `BPF_F_BEFORE` and `BPF_F_AFTER` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all.
    First = 1 << 3,
    /// After all.
    Last = 1 << 4,
}

/// It hangs until this is dropped.
#[derive(Debug)]
pub struct Neighbour {
    _link: OwnedFd,
}

#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The beginning of that for `BPF_PROG_LOAD`, up to the name.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The beginning of that for `BPF_LINK_CREATE`, as of 6.6.
#[repr(C)]
struct Link {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    revision: u64,
}

impl Neighbour {
    /// Hangs a program called `neighbour` on an interface; an error where the kernel has no tcx.
    pub fn new(
        namespace: &Namespace,
        interface: &str,
        direction: Direction,
        action: Action,
        place: Place,
    ) -> io::Result<Self> {
        let program = load(action)?;
        let ifindex = namespace.run(|| wireguard::ifindex_of(interface)).expect("it is there");
        let mut link = Link {
            program_fd: u32::try_from(program.as_raw_fd()).expect("a descriptor"),
            ifindex,
            attach_type: attach_type(direction),
            flags: place as u32,
            relative: 0,
            reserved: 0,
            revision: 0,
        };
        let link = namespace.run(|| bpf(BPF_LINK_CREATE, &mut link))?;
        Ok(Self { _link: descriptor(link) })
    }
}

fn load(action: Action) -> io::Result<OwnedFd> {
    let instructions = [
        Instruction { code: MOV_R0, registers: 0, offset: 0, immediate: action as i32 },
        Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 },
    ];
    let mut load = Load {
        program_type: SCHED_CLS,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"neighbour\0\0\0\0\0\0\0",
    };
    bpf(BPF_PROG_LOAD, &mut load).map(descriptor)
}

fn descriptor(fd: libc::c_long) -> OwnedFd {
    let fd = libc::c_int::try_from(fd).expect("a descriptor");
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
