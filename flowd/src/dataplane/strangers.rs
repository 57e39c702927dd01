//! Programs of a flowd before that this one does not go on with: they were kept in another place, or
//! theirs is out of reach. They would go on judging by what is no longer in force.

use std::{io, os::fd::AsFd as _};

use aya::programs::SchedClassifier;
use flowd_common::counter::Direction;

use super::{
    attachment::{BOTH, attach_type},
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

/// Whether a tcx program hangs on an interface that is called as flowd's are.
pub(super) fn has_any(name: &str, direction: Direction) -> io::Result<bool> {
    let (_, programs) =
        SchedClassifier::query_tcx(name, attach_type(direction)).map_err(io::Error::other)?;
    Ok(programs.iter().any(|program| program.name_as_str() == Some(program_name(direction))))
}

fn links(name: &str, ifindex: u32, direction: Direction, own: &[u32]) -> io::Result<Vec<u32>> {
    let (_, programs) =
        SchedClassifier::query_tcx(name, attach_type(direction)).map_err(io::Error::other)?;
    let strange: Vec<u32> = programs
        .iter()
        .filter(|program| program.name_as_str() == Some(program_name(direction)))
        .map(aya::programs::ProgramInfo::id)
        .filter(|id| !own.contains(id))
        .collect();
    if strange.is_empty() {
        return Ok(Vec::new());
    }
    let links = syscall::tcx_links(ifindex, direction)?;
    let links = links.into_iter().filter(|(program, link)| strange.contains(program) && *link != 0);
    Ok(links.map(|(_, link)| link).collect())
}
