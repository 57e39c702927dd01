//! Where flowd's programs hang among others on the same interface.
//!
//! With tcx, programs run one after the other until one decides; flowd's decide only what they drop.
//! A place is chosen when they are attached. Whoever attaches later chooses too, and a program that
//! hangs cannot be moved without a moment in which packets are counted twice or not at all.

use aya::programs::{LinkOrder, SchedClassifier, tc::TcHandle};
use flowd_common::counter::Direction;

use super::{Dataplane, attachment::attach_type, classifier, program_name, syscall};

/// Before or after the programs that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Before all: flowd sees what others drop or decide.
    First,
    /// After all: flowd sees what others let through and leave undecided.
    #[default]
    Last,
}

/// A filter's place in a `clsact` qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: u16,
    pub(super) handle: TcHandle,
}

/// Where flowd's filters may be, so that another daemon finds them.
pub(super) const PLACES: [Place; 2] = [Order::Last.place(), Order::First.place()];

/// One program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hanging {
    /// Its number in the kernel.
    pub id: u32,
    /// `None`: only who has `CAP_SYS_ADMIN` may ask for it.
    pub name: Option<String>,
    /// Whether it is this flowd's.
    pub is_own: bool,
}

impl Order {
    /// The word of the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
        }
    }

    pub(super) const fn link(self) -> LinkOrder {
        match self {
            Self::First => LinkOrder::first(),
            Self::Last => LinkOrder::last(),
        }
    }

    /// Priority 1 is anybody's, so there the handle is flowd's own.
    pub(super) const fn place(self) -> Place {
        match self {
            Self::First => Place { priority: 1, handle: TcHandle::new(0, 0xf10d) },
            Self::Last => Place { priority: 0xf10d, handle: TcHandle::new(0, 1) },
        }
    }

    /// Whether flowd's program is where it should be.
    fn is_kept(self, programs: &[Hanging]) -> bool {
        let end = match self {
            Self::First => programs.first(),
            Self::Last => programs.last(),
        };
        end.is_none_or(|program| program.is_own)
    }
}

impl Dataplane {
    /// Attaches from now on in this order.
    pub fn set_order(&mut self, order: Order) {
        self.order = order;
    }

    /// The tcx programs of one direction of an interface in the order in which they run; none where
    /// the kernel has no tcx.
    pub fn hanging(&self, ifindex: u32, name: &str, direction: Direction) -> Vec<Hanging> {
        let Ok(links) = syscall::tcx_links(ifindex, direction) else { return Vec::new() };
        let own = classifier(&self.ebpf, program_name(direction)).info().map(|info| info.id());
        let known = SchedClassifier::query_tcx(name, attach_type(direction));
        let known = known.map(|(_, programs)| programs).unwrap_or_default();
        let programs = links.into_iter().map(|(id, _)| Hanging {
            id,
            name: known
                .iter()
                .find(|program| program.id() == id)
                .and_then(|program| program.name_as_str().map(str::to_owned)),
            is_own: own.as_ref().is_ok_and(|own| *own == id),
        });
        programs.collect()
    }

    /// Tells where programs that stayed hang in another order than the one that is configured.
    pub(super) fn tell_order(&self, ifindex: u32, name: &str, direction: Direction) {
        let programs = self.hanging(ifindex, name, direction);
        if !self.order.is_kept(&programs) {
            tracing::warn!(
                interface = name,
                program = program_name(direction),
                order = self.order.word(),
                "it hangs in another place than `datapath.order` says, because it stayed or another \
                 program took the place: stop flowd, run `flowd detach` and start it to move it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hanging, Order, PLACES};

    #[test]
    fn the_end_of_the_row_is_what_is_wanted() {
        let cases = [
            // who is flowd's, first, last
            (&[][..], true, true),
            (&[true], true, true),
            (&[true, false], true, false),
            (&[false, true], false, true),
            (&[false, true, false], false, false),
        ];
        for (own, first, last) in cases {
            let programs: Vec<_> =
                own.iter().map(|is_own| Hanging { id: 1, name: None, is_own: *is_own }).collect();
            assert_eq!(Order::First.is_kept(&programs), first, "{own:?}");
            assert_eq!(Order::Last.is_kept(&programs), last, "{own:?}");
        }
        assert_ne!(PLACES[0], PLACES[1]);
    }
}
