//! The programs on one interface.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
    },
    util::KernelVersion,
};
use flowd_common::counter::Direction;

use super::{
    Dataplane, DataplaneError, Detached, Pins, classifier, classifier_mut,
    error::{first_line, os_error},
    order::{Order, PLACES, Place},
    program_name, strangers,
};
use crate::wireguard;

/// The kernel that brought tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

pub(super) const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

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

/// Both programs on one interface. Dropping it takes them off, unless they stay.
#[derive(Debug)]
pub struct Attachment {
    /// How.
    pub by: AttachedBy,
    /// The directions in which no program of a daemon before was replaced.
    pub fresh: Vec<Direction>,
    links: Vec<SchedClassifierLink>,
    /// The files by which links stay.
    pins: Vec<PathBuf>,
    stays: bool,
}

impl Attachment {
    /// Takes the programs off; an interface that is gone has taken them along. How many there were.
    pub fn detach(mut self) -> usize {
        for path in mem::take(&mut self.pins) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, "the pin was gone already");
            }
        }
        let links = mem::take(&mut self.links);
        let count = links.len();
        for link in links {
            if let Err(error) = link.detach() {
                tracing::debug!(error = %first_line(&error), "the link was gone already");
            }
        }
        count
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A pinned link lives by its file; a filter would be taken off by its guard.
        if self.stays && self.by == AttachedBy::Clsact {
            mem::take(&mut self.links).into_iter().for_each(mem::forget);
        }
    }
}

impl Dataplane {
    /// Puts both programs on the interface called `name`, whose number is `ifindex`; with `pins` they
    /// stay when the daemon goes, however it goes. Where those of a daemon before have stayed, they
    /// are replaced, each in one instant.
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
        let stays = pins.is_some();
        let order = self.order;
        let mut attachment =
            Attachment { by, fresh: Vec::new(), links: Vec::new(), pins: Vec::new(), stays };
        for direction in BOTH {
            let program = classifier_mut(&mut self.ebpf, program_name(direction));
            let pin = pins.map(|pins| pins.link(ifindex, direction));
            let before = match (by, &pin) {
                (AttachedBy::Clsact, _) => replace_filter(program, ifindex, name, direction),
                (AttachedBy::Tcx, None) => Ok(None),
                (AttachedBy::Tcx, Some(pin)) => Ok(take_over(program, pin)),
            };
            if let Ok(None) = before {
                attachment.fresh.push(direction);
            }
            let attached = match (before, by, &pin) {
                (Ok(Some(link)), _, _) => Ok(link),
                (Err(error), _, _) => Err(error),
                (Ok(None), AttachedBy::Clsact, _) => attach_clsact(program, name, direction, order),
                (Ok(None), AttachedBy::Tcx, None) => attach_tcx(program, name, direction, order),
                (Ok(None), AttachedBy::Tcx, Some(pin)) => {
                    attach_tcx(program, name, direction, order).and_then(|link| keep(link, pin))
                }
            };
            match attached {
                Ok(link) => {
                    attachment.links.push(link);
                    attachment.pins.extend(pin.filter(|_| by == AttachedBy::Tcx));
                    failpoint!("attached-one-way");
                }
                Err(error) => {
                    attachment.detach();
                    return Err(fail(first_line(&error)));
                }
            }
        }
        if by == AttachedBy::Tcx {
            self.take_strangers_off(name, ifindex);
            for direction in BOTH {
                self.tell_order(ifindex, name, direction);
            }
        }
        Ok(attachment)
    }

    /// Takes off what a flowd before has left and this one could not replace.
    fn take_strangers_off(&self, name: &str, ifindex: u32) {
        let own: Result<Vec<u32>, ProgramError> = BOTH
            .map(|direction| classifier(&self.ebpf, program_name(direction)).info())
            .into_iter()
            .map(|info| Ok(info?.id()))
            .collect();
        let taken = own
            .map_err(|error| first_line(&error))
            .and_then(|own| strangers::take_off(name, ifindex, &own).map_err(|e| e.to_string()));
        match taken {
            Ok(0) => {}
            Ok(programs) => tracing::warn!(
                interface = name,
                programs,
                "took the programs of a flowd before off that kept them in another place: what they \
                 counted since it ended is not recorded"
            ),
            Err(error) => tracing::warn!(
                interface = name,
                error,
                "programs of a flowd before may hang on it still: look with `bpftool net`"
            ),
        }
    }
}

pub(super) fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// Puts the program in the place of the one that hangs by a pinned link. `None` when there is none,
/// or its interface is gone and the number is another's now.
fn take_over(program: &mut SchedClassifier, path: &Path) -> Option<SchedClassifierLink> {
    let pinned = PinnedLink::from_pin(path).ok()?;
    let replaced = match SchedClassifierLink::try_from(FdLink::from(pinned)) {
        Ok(link) => program.attach_to_link(link).and_then(|id| program.take_link(id)),
        Err(error) => Err(other(error)),
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

/// Gives a link a name in the BPF file system, so that it stays.
fn keep(link: SchedClassifierLink, pin: &Path) -> Result<SchedClassifierLink, ProgramError> {
    let link = FdLink::try_from(link).map_err(other)?;
    let pinned = link.pin(pin).map_err(other)?;
    SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(other)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> ProgramError {
    ProgramError::IOError(io::Error::other(error))
}

fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
    order: Order,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = TcAttachOptions::TcxOrder(order.link());
    let id = program.attach_with_options(name, attach_type(direction), options)?;
    program.take_link(id)
}

/// Replaces the filter of a flowd before. `None` when there is none.
fn replace_filter(
    program: &mut SchedClassifier,
    ifindex: u32,
    name: &str,
    direction: Direction,
) -> Result<Option<SchedClassifierLink>, ProgramError> {
    for Place { priority, handle } in PLACES {
        // To ask for one at the priority of somebody else's other protocol is an error.
        if let Ok(false) = wireguard::has_filter(ifindex, direction, priority, handle.into()) {
            continue;
        }
        let kind = attach_type(direction);
        let before = SchedClassifierLink::attached(name, kind, priority, handle, None)
            .map_err(TcError::IoError)?;
        match program.attach_to_link(before) {
            Ok(id) => return program.take_link(id).map(Some),
            Err(error) if os_error(&error) == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn attach_clsact(
    program: &mut SchedClassifier,
    name: &str,
    direction: Direction,
    order: Order,
) -> Result<SchedClassifierLink, ProgramError> {
    let Place { priority, handle } = order.place();
    let options = NlOptions { priority, handle, ..NlOptions::default() };
    let kind = attach_type(direction);
    let id = program.attach_with_options(name, kind, TcAttachOptions::Netlink(options))?;
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

/// Whether a daemon has left tables that may have counts.
pub fn has_left_tables(base: &Path) -> bool {
    Pins::under(base).is_ok_and(|pins| pins.has_tables())
}

/// Where the tables of this network namespace are, for a shell.
pub fn tables_pattern(base: &Path) -> String {
    Pins::under(base).map_or_else(|_| base.display().to_string(), |pins| pins.pattern())
}

/// Takes flowd's programs off every interface of this network namespace, while no daemon runs.
pub fn detach_everything(base: &Path) -> io::Result<Detached> {
    let mut cleared = Pins::under(base)?.clear()?;
    // Of this network namespace, whoever mounted /sys.
    let devices = fs::read_to_string("/proc/net/dev")?;
    for name in devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())) {
        // Those that were kept elsewhere. Fails where the kernel has no tcx.
        if let Some(ifindex) = wireguard::ifindex_of(name) {
            cleared.removed += strangers::take_off(name, ifindex, &[]).unwrap_or_default();
        }
        for direction in BOTH {
            // Fails where there is no such filter.
            if tc::qdisc_detach_program(name, attach_type(direction), program_name(direction))
                .is_ok()
            {
                cleared.removed += 1;
            }
        }
    }
    Ok(cleared)
}
