//! Whether the programs still hang where they were put: anybody with the right to do so may take
//! them off.

use flowd_common::counter::Direction;

use super::{
    AttachedBy, Dataplane, DataplaneError,
    attachment::{BOTH, HANDLE, PRIORITY},
    classifier,
    error::first_line,
    program_name, strangers, syscall,
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
                    let (priority, handle) = (PRIORITY, HANDLE.into());
                    wireguard::has_filter(ifindex, direction, priority, handle)
                        .map_err(|error| error.to_string())
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
            let by_filter = || {
                wireguard::has_filter(ifindex, direction, PRIORITY, HANDLE.into()).unwrap_or(true)
            };
            by_link.unwrap_or_else(|_| by_filter())
        })
    }

    fn hangs(&self, ifindex: u32, direction: Direction) -> Result<bool, String> {
        let program = classifier(&self.ebpf, program_name(direction));
        let own = program.info().map_err(|error| first_line(&error))?.id();
        let links = syscall::tcx_links(ifindex, direction).map_err(|error| error.to_string())?;
        Ok(links.iter().any(|(program, _)| *program == own))
    }
}
