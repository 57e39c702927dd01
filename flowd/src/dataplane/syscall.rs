//! Commands of `bpf(2)` that aya does not have, or not for what another daemon has made.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};
use flowd_common::counter::Direction;

/// `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
/// Since 5.9: whoever else holds the link, its program is off.
const BPF_LINK_DETACH: libc::c_long = 34;

/// `enum bpf_attach_type` there.
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX` in `include/linux/bpf_mprog.h`: programs of one direction of an interface.
const MAX_PROGRAMS: usize = 64;

/// The member of `union bpf_attr` there for commands on one entry of a map.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// That with the `pathname`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `query`, as of 6.6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    reserved: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// That with the `link_id`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct IdAttr {
    id: u32,
}

/// `link_detach`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DetachAttr {
    link_fd: u32,
}

/// Opens the object behind a name in the BPF file system.
pub(super) fn object(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = PathAttr { pathname: path.as_ptr() as u64, ..PathAttr::zeroed() };
    let fd = bpf(BPF_OBJ_GET, &attr)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the program of a link off.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &DetachAttr { link_fd: link.as_raw_fd() as u32 }).map(drop)
}

/// The tcx links of one direction of an interface: the numbers of program and link.
pub(super) fn tcx_links(ifindex: u32, direction: Direction) -> io::Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = ([0_u32; MAX_PROGRAMS], [0_u32; MAX_PROGRAMS]);
    let attach_type = match direction {
        Direction::Ingress => BPF_TCX_INGRESS,
        Direction::Egress => BPF_TCX_EGRESS,
    };
    let mut attr = QueryAttr {
        ifindex,
        attach_type,
        program_ids: programs.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..QueryAttr::zeroed()
    };
    let bytes = bytemuck::bytes_of_mut(&mut attr);
    // SAFETY: the attribute is as long as it is told, what it points to has room for as many as it
    // says, and all of it lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, bytes.as_mut_ptr(), bytes.len()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(programs.into_iter().zip(links).take(attr.count as usize).collect())
}

/// Opens a link by its number.
pub(super) fn link(id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, &IdAttr { id })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads one entry into `value`, which must be as long as the map's values are; whether it is there.
pub(super) fn look_up(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        ..ElementAttr::zeroed()
    };
    found(bpf(BPF_MAP_LOOKUP_ELEM, &attr))
}

/// Deletes one entry; whether it was there.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        ..ElementAttr::zeroed()
    };
    found(bpf(BPF_MAP_DELETE_ELEM, &attr))
}

/// Whether a directory is in a BPF file system.
pub(super) fn is_bpf_file_system(dir: &Path) -> bool {
    let Ok(dir) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends with a zero, and the kernel writes one `statfs` at most.
    let result = unsafe { libc::statfs(dir.as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: the call succeeded, so it has filled the structure.
    result == 0 && unsafe { stat.assume_init() }.f_type == libc::BPF_FS_MAGIC
}

fn found(result: io::Result<RawFd>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn bpf(command: libc::c_long, attr: &impl Pod) -> io::Result<RawFd> {
    let attr = bytemuck::bytes_of(attr);
    // SAFETY: the attribute is as long as it is told, and what it points to lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), attr.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
