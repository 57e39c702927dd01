//! Whether the programs still hang where they were put: anybody with the right to do so may take
//! them off.

use std::io;

use flowd_common::counter::Direction;

use super::{
    AttachedBy, Dataplane, DataplaneError, attachment::BOTH, classifier, error::first_line,
    order::PLACES, program_name, strangers, syscall,
};
use crate::wireguard;

impl Dataplane {
    /// The directions of an interface whose program is not on it.
    pub fn missing(
        &self,
        name: &str,
        ifindex: u32,
        by: AttachedBy,
    ) -> Result<Vec<Direction>, DataplaneError> {
        let mut missing = Vec::new();
        for direction in BOTH {
            let is_there = match by {
                AttachedBy::Tcx => self.hangs(ifindex, direction),
                AttachedBy::Clsact => {
                    has_filter(ifindex, direction).map_err(|error| error.to_string())
                }
            };
            let is_there = is_there
                .map_err(|reason| DataplaneError::Look { interface: name.to_owned(), reason })?;
            if !is_there {
                missing.push(direction);
            }
        }
        Ok(missing)
    }

    /// Whether a program of this or another flowd hangs on an interface; `true` where nobody can tell.
    pub fn has_programs(&self, name: &str, ifindex: u32) -> bool {
        BOTH.into_iter().any(|direction| {
            let by_link = strangers::has_any(name, ifindex, direction);
            let by_filter = || has_filter(ifindex, direction).unwrap_or(true);
            by_link.unwrap_or_else(|_| by_filter())
        })
    }

    /// By its number: to ask for the programs of others takes `CAP_SYS_ADMIN`.
    fn hangs(&self, ifindex: u32, direction: Direction) -> Result<bool, String> {
        let program = classifier(&self.ebpf, program_name(direction));
        let own = program.info().map_err(|error| first_line(&error))?.id();
        let links = syscall::tcx_links(ifindex, direction).map_err(|error| error.to_string())?;
        Ok(links.iter().any(|(program, _)| *program == own))
    }
}

fn has_filter(ifindex: u32, direction: Direction) -> io::Result<bool> {
    for place in PLACES {
        if wireguard::has_filter(ifindex, direction, place.priority, place.handle.into())? {
            return Ok(true);
        }
    }
    Ok(false)
}
