//! The programs on one interface.

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
};
use aya::util::KernelVersion;
use flowd_common::counter::Direction;

use super::{Dataplane, DataplaneError, classifier_mut, error::first_line, program_name};

/// The kernel that brought tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// How the programs hang on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedBy {
    /// Links of the kernel's multi-program API, since 6.6: gone with the daemon, in no one's way.
    Tcx,
    /// Filters of a `clsact` qdisc.
    Clsact,
}

impl AttachedBy {
    /// The word in status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Both programs on one interface; dropping it takes them off.
#[derive(Debug)]
pub struct Attachment {
    /// How.
    pub by: AttachedBy,
    links: Vec<SchedClassifierLink>,
}

impl Attachment {
    /// Takes the programs off; an interface that is gone has taken them along.
    pub fn detach(self) {
        for link in self.links {
            if let Err(error) = link.detach() {
                tracing::debug!(error = %first_line(&error), "the link was gone already");
            }
        }
    }
}

impl Dataplane {
    /// Puts both programs on the interface called `name`, whose number is `ifindex`.
    pub fn attach(&mut self, name: &str, ifindex: u32) -> Result<Attachment, DataplaneError> {
        self.make_counters(ifindex)?;
        let has_tcx = KernelVersion::current().is_ok_and(|kernel| kernel >= TCX_SINCE);
        let by = if has_tcx { AttachedBy::Tcx } else { AttachedBy::Clsact };
        let fail = |reason: String| DataplaneError::Attach { interface: name.to_owned(), reason };
        if by == AttachedBy::Clsact {
            prepare_clsact(name).map_err(|error| fail(first_line(&error)))?;
        }
        let mut attachment = Attachment { by, links: Vec::new() };
        for direction in [Direction::Egress, Direction::Ingress] {
            let program = classifier_mut(&mut self.ebpf, program_name(direction));
            match attach_one(program, name, direction, by) {
                Ok(link) => attachment.links.push(link),
                Err(error) => {
                    attachment.detach();
                    return Err(fail(first_line(&error)));
                }
            }
        }
        Ok(attachment)
    }
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

fn attach_one(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
    by: AttachedBy,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = match by {
        AttachedBy::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
        AttachedBy::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
    };
    let id = program.attach_with_options(name, attach_type(direction), options)?;
    program.take_link(id)
}

/// Makes the qdisc unless somebody else has, and removes what a killed flowd left on it.
fn prepare_clsact(name: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        // The kernel says EEXIST when the interface has the qdisc.
        Err(error) if super::error::os_error(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(error),
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        match tc::qdisc_detach_program(name, attach_type(direction), program_name(direction)) {
            Ok(()) => tracing::warn!(
                interface = name,
                program = program_name(direction),
                "removed the program of a flowd that was killed"
            ),
            Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
