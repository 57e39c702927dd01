//! Programs of a flowd before that this one does not go on with: they were kept in another place, or
//! theirs is out of reach. They would go on judging by what is no longer in force.

use std::{io, os::fd::AsFd as _};

use aya::programs::SchedClassifier;
use flowd_common::counter::Direction;

use super::{
    attachment::{BOTH, attach_type},
    error::os_error,
    program_name, syscall,
};

/// Takes every tcx program off an interface that is called as flowd's are and is not one of `own`.
/// How many there were.
pub(super) fn take_off(name: &str, ifindex: u32, own: &[u32]) -> io::Result<usize> {
    let mut count = 0;
    for direction in BOTH {
        for link in links(name, ifindex, direction, own)? {
            // One that is gone meanwhile is off too.
            let Ok(link) = syscall::link(link) else { continue };
            syscall::detach_link(link.as_fd())?;
            count += 1;
        }
    }
    Ok(count)
}

/// Whether a tcx program hangs on an interface that is called as flowd's are; `true` where one hangs
/// whose name flowd may not see.
pub(super) fn has_any(name: &str, ifindex: u32, direction: Direction) -> io::Result<bool> {
    if syscall::tcx_links(ifindex, direction)?.is_empty() {
        return Ok(false);
    }
    match called_as_ours(name, direction) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        programs => programs.map(|programs| !programs.is_empty()),
    }
}

fn links(name: &str, ifindex: u32, direction: Direction, own: &[u32]) -> io::Result<Vec<u32>> {
    let mut links = syscall::tcx_links(ifindex, direction)?;
    links.retain(|(program, link)| !own.contains(program) && *link != 0);
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let strange = called_as_ours(name, direction)?;
    links.retain(|(program, _)| strange.contains(program));
    Ok(links.into_iter().map(|(_, link)| link).collect())
}

/// The numbers of the programs that are called as flowd's are. Names take CAP_SYS_ADMIN
/// (`bpf_prog_get_fd_by_id` in `kernel/bpf/syscall.c`), which the packaged service does not have.
fn called_as_ours(name: &str, direction: Direction) -> io::Result<Vec<u32>> {
    let (_, programs) =
        SchedClassifier::query_tcx(name, attach_type(direction)).map_err(|error| {
            os_error(&error).map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
        })?;
    let ours = programs
        .iter()
        .filter(|program| program.name_as_str() == Some(program_name(direction)))
        .map(aya::programs::ProgramInfo::id);
    Ok(ours.collect())
}
