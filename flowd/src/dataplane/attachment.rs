//! The programs on one interface.

use std::{fs, io, mem, path::PathBuf};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};
use flowd_common::counter::Direction;

use super::{
    Dataplane, DataplaneError, Pins, classifier_mut,
    error::{first_line, os_error},
    program_name,
};

/// The kernel that brought tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// Where flowd's filters of a `clsact` qdisc are, so that another daemon finds them.
const PRIORITY: u16 = 0xf10d;
const HANDLE: TcHandle = TcHandle::new(0, 1);

const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// How the programs hang on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedBy {
    /// Links of the kernel's multi-program API, since 6.6: in no one's way.
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

/// Both programs on one interface; dropping it takes them off, unless they stay.
#[derive(Debug)]
pub struct Attachment {
    /// How.
    pub by: AttachedBy,
    ifindex: u32,
    links: Vec<SchedClassifierLink>,
    /// The files by which the links stay.
    pins: Vec<PathBuf>,
}

impl Attachment {
    /// Takes the programs off; an interface that is gone has taken them along.
    pub fn detach(mut self) {
        self.go_with_the_daemon();
        for link in self.links {
            if let Err(error) = link.detach() {
                tracing::debug!(error = %first_line(&error), "the link was gone already");
            }
        }
    }

    /// Makes the programs stay when the daemon goes, however it goes.
    pub fn stay(&mut self, pins: &Pins) -> io::Result<()> {
        if self.by == AttachedBy::Clsact || !self.pins.is_empty() {
            return Ok(());
        }
        for (link, direction) in mem::take(&mut self.links).into_iter().zip(BOTH) {
            let path = pins.link(self.ifindex, direction);
            let link = FdLink::try_from(link).map_err(io::Error::other)?;
            let pinned = link.pin(&path).map_err(|error| io::Error::other(first_line(&error)))?;
            self.pins.push(path);
            let link = SchedClassifierLink::try_from(FdLink::from(pinned));
            self.links.push(link.map_err(io::Error::other)?);
        }
        Ok(())
    }

    /// Makes them go with the daemon again.
    pub fn go_with_the_daemon(&mut self) {
        for path in mem::take(&mut self.pins) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, "the pin was gone already");
            }
        }
    }

    /// Lets go of programs that stay.
    pub fn leave(self) {
        // A pinned link lives by its file; a filter would be taken off by the guard.
        if self.by == AttachedBy::Clsact {
            self.links.into_iter().for_each(mem::forget);
        }
    }
}

impl Dataplane {
    /// Puts both programs on the interface called `name`, whose number is `ifindex`. Where those of
    /// a daemon before have stayed, they are replaced, each in one instant.
    pub fn attach(
        &mut self,
        name: &str,
        ifindex: u32,
        pins: Option<&Pins>,
    ) -> Result<Attachment, DataplaneError> {
        self.make_counters(ifindex)?;
        let has_tcx = KernelVersion::current().is_ok_and(|kernel| kernel >= TCX_SINCE);
        let by = if has_tcx { AttachedBy::Tcx } else { AttachedBy::Clsact };
        let fail = |reason: String| DataplaneError::Attach { interface: name.to_owned(), reason };
        if by == AttachedBy::Clsact {
            prepare_clsact(name).map_err(|error| fail(first_line(&error)))?;
        }
        let mut attachment = Attachment { by, ifindex, links: Vec::new(), pins: Vec::new() };
        for direction in BOTH {
            let program = classifier_mut(&mut self.ebpf, program_name(direction));
            let path = pins.map(|pins| pins.link(ifindex, direction));
            let taken_over = path.as_ref().and_then(|path| take_over(program, path));
            let attached = match (taken_over, by) {
                (Some(link), _) => {
                    attachment.pins.extend(path);
                    Ok(link)
                }
                (None, AttachedBy::Tcx) => attach_tcx(program, name, direction),
                (None, AttachedBy::Clsact) => attach_clsact(program, name, direction),
            };
            match attached {
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

/// Puts the program in the place of the one that hangs by a pinned link. `None` when there is none,
/// or its interface is gone and the number is another's now.
fn take_over(program: &mut SchedClassifier, path: &PathBuf) -> Option<SchedClassifierLink> {
    let pinned = PinnedLink::from_pin(path).ok()?;
    let replaced = match SchedClassifierLink::try_from(FdLink::from(pinned)) {
        Ok(link) => program.attach_to_link(link).and_then(|id| program.take_link(id)),
        Err(error) => Err(ProgramError::IOError(io::Error::other(error))),
    };
    match replaced {
        Ok(link) => Some(link),
        Err(error) => {
            tracing::debug!(error = %first_line(&error), "a link of the flowd before is of no use");
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(%error, path = %path.display(), "it stays where it is");
            }
            None
        }
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(name, attach_type(direction), options)?;
    program.take_link(id)
}

/// Replaces the filter of a flowd before, or makes one.
fn attach_clsact(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
) -> Result<SchedClassifierLink, ProgramError> {
    let kind = attach_type(direction);
    let before = SchedClassifierLink::attached(name, kind, PRIORITY, HANDLE, None)
        .map_err(TcError::IoError)?;
    let id = match program.attach_to_link(before) {
        Ok(id) => id,
        Err(error) if os_error(&error) == Some(libc::ENOENT) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
            program.attach_with_options(name, kind, TcAttachOptions::Netlink(options))?
        }
        Err(error) => return Err(error),
    };
    program.take_link(id)
}

/// Makes the qdisc unless somebody else has.
fn prepare_clsact(name: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) | Err(TcError::AlreadyAttached) => Ok(()),
        // The kernel says EEXIST when the interface has the qdisc.
        Err(error) if os_error(&error) == Some(libc::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes flowd's programs off every interface of this network namespace, while no daemon runs. How
/// many interfaces or files there were.
pub fn detach_everything(base: &std::path::Path) -> io::Result<usize> {
    let mut removed = Pins::under(base)?.clear()?;
    // Of this network namespace, whoever mounted /sys.
    let devices = fs::read_to_string("/proc/net/dev")?;
    for name in devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())) {
        for direction in BOTH {
            // Fails where there is no such filter.
            if tc::qdisc_detach_program(name, attach_type(direction), program_name(direction))
                .is_ok()
            {
                removed += 1;
            }
        }
    }
    Ok(removed)
}
