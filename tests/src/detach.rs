//! Taking programs off an interface behind flowd's back, as `bpftool link detach` and `tc` do.

use std::{io, ptr};

use flowd::wireguard;
use flowd_common::counter::Direction;

use crate::namespace::Namespace;

/// `BPF_PROG_QUERY` of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_LINK_GET_FD_BY_ID` there.
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
/// `BPF_LINK_DETACH` there.
const BPF_LINK_DETACH: libc::c_long = 34;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type` there.
const BPF_TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS` there.
const BPF_TCX_EGRESS: u32 = 47;
/// Links that a direction has at most here.
const MAX_LINKS: usize = 8;

/// The `query` member of `union bpf_attr` there, as of 6.6.
#[derive(Default)]
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Takes every program of one direction off an interface, whoever holds its link or filter.
pub fn programs(namespace: &Namespace, interface: &str, direction: Direction) {
    let word = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let links = namespace.run(|| links(interface, attach_type(direction)));
    match links {
        Ok(links) => {
            assert!(!links.is_empty(), "{interface} has programs");
            links.into_iter().for_each(detach);
        }
        // No tcx in this kernel: the programs are filters.
        Err(_) => drop(namespace.output("tc", &["filter", "del", "dev", interface, word])),
    }
}

/// How many tcx programs of one direction hang on an interface; an error where there is no tcx.
pub fn hanging(namespace: &Namespace, interface: &str, direction: Direction) -> io::Result<usize> {
    Ok(namespace.run(|| links(interface, attach_type(direction)))?.len())
}

pub(crate) fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => BPF_TCX_INGRESS,
        Direction::Egress => BPF_TCX_EGRESS,
    }
}

fn links(interface: &str, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; MAX_LINKS];
    let mut links = [0_u32; MAX_LINKS];
    let ifindex = wireguard::ifindex_of(interface).expect("it is there");
    let mut query = Query {
        ifindex,
        attach_type,
        prog_ids: programs.as_mut_ptr() as u64,
        count: MAX_LINKS as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    Ok(links[..query.count as usize].to_vec())
}

fn detach(link_id: u32) {
    let mut id = link_id;
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, &mut id).expect("the link is there");
    let mut attr = u32::try_from(fd).expect("a descriptor");
    bpf(BPF_LINK_DETACH, &mut attr).expect("it hangs");
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { libc::close(libc::c_int::try_from(fd).expect("a descriptor")) };
}

pub(crate) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    let attr = ptr::from_mut(attr);
    // SAFETY: the attribute is as long as it is told and begins like the kernel's; what it points to
    // lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
