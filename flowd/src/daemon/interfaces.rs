//! The interfaces that flowd hangs on.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use flowd_common::{counter::Direction, memory::InterfaceNote};

use super::{
    collector::now_ms,
    gaps::{At, Gaps},
    watched::{Watched, bound, growth, less, note},
};
use crate::{
    audit::{Event, Hash, Teller, word},
    dataplane::{Dataplane, DataplaneError, Pins},
    flows::{Bound, Counters, Gap, Stage},
    wireguard::{self, DeviceCounters, Interface},
};

/// Interfaces that are gone are remembered in status up to this many.
const REMEMBERED: usize = 32;

/// Every interface that is or was watched, by number.
#[derive(Default)]
pub(super) struct Interfaces {
    by_index: BTreeMap<u32, Watched>,
    /// Interfaces that could not be attached, told once, and what their devices had counted when
    /// flowd first tried.
    refused: HashMap<u32, (Arc<str>, Counters)>,
    /// Unix milliseconds of the last [`Self::update`]; `None` before the first.
    updated_ms: Option<i64>,
    /// Where programs are kept; `None`: there is no such place.
    pins: Option<Pins>,
    /// What a daemon before noted.
    notes: BTreeMap<u32, InterfaceNote>,
    /// What was in the tables under the numbers of interfaces that are others now.
    counted_before: HashMap<u32, Counters>,
    /// The audit log.
    pub(super) teller: Teller,
}

impl Interfaces {
    /// None yet; programs are kept in `pins`.
    pub(super) fn new(pins: Option<Pins>) -> Self {
        Self { pins, ..Self::default() }
    }

    /// Takes what a daemon before noted.
    pub(super) fn remember(&mut self, notes: &[(u32, InterfaceNote)]) {
        self.notes = notes.iter().copied().collect();
    }

    /// A daemon that noted the same kernel's interfaces was there until `alive_ms`.
    pub(super) fn watched_until(&mut self, alive_ms: Option<i64>) {
        self.updated_ms = alive_ms.filter(|_| !self.notes.is_empty());
    }

    /// Whether the programs stay when the daemon goes.
    pub(super) fn are_staying(&self) -> bool {
        self.pins.is_some()
    }

    /// The name of an interface, also of one that went while no daemon ran.
    pub(super) fn name(&self, ifindex: u32) -> Option<Arc<str>> {
        let watched = self.by_index.get(&ifindex).map(|watched| watched.name.clone());
        watched.or_else(|| {
            let note = self.notes.get(&ifindex)?;
            let name = note.name.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(name).into())
        })
    }

    /// Forgets what is noted of interfaces that are gone, and whose flows are recorded.
    pub(super) fn forget_notes(&mut self, dataplane: &mut Dataplane) -> Result<(), DataplaneError> {
        for ifindex in mem::take(&mut self.notes).into_keys() {
            if !self.is_attached(ifindex) {
                dataplane.notebook().forget_interface(ifindex)?;
            }
        }
        let Some(pins) = &self.pins else { return Ok(()) };
        if let Err(error) = pins.forget_links(|ifindex| self.is_attached(ifindex)) {
            tracing::debug!(%error, "links of interfaces that are gone stay");
        }
        Ok(())
    }

    /// Notes the attached interfaces for the next daemon.
    pub(super) fn note(&self, dataplane: &mut Dataplane) -> Result<(), DataplaneError> {
        for (ifindex, watched) in &self.by_index {
            if watched.attachment.is_some() {
                dataplane.notebook().interface(*ifindex, &watched.note())?;
            }
        }
        Ok(())
    }

    /// Whether the attached interfaces have the names, the peers and the allowed-ips of `found`, so
    /// that only WireGuard's counters are new.
    pub(super) fn are_configured_as(&self, found: &[Interface]) -> bool {
        let mut attached: Vec<&Interface> = self
            .by_index
            .values()
            .filter(|watched| watched.attachment.is_some())
            .map(|watched| &watched.now)
            .collect();
        attached.sort_by(|a, b| a.name.cmp(&b.name));
        attached.len() == found.len()
            && attached.iter().zip(found).all(|(known, found)| same_configuration(known, found))
    }

    /// Takes WireGuard's new counters of interfaces that are configured as before.
    pub(super) fn refresh(&mut self, found: Vec<Interface>) {
        for interface in found {
            if let Some(watched) = self.by_index.get_mut(&interface.ifindex) {
                watched.now = interface;
            }
        }
    }

    /// Takes what WireGuard says now: attaches to what is new, lets go of what is gone.
    pub(super) fn update(
        &mut self,
        found: Vec<Interface>,
        now_ms: i64,
        dataplane: &mut Dataplane,
        gaps: &mut Gaps,
    ) {
        let updated_ms = self.updated_ms.replace(now_ms);
        for (ifindex, watched) in &mut self.by_index {
            let still = found.iter().find(|interface| interface.ifindex == *ifindex);
            match (still, watched.attachment.is_some()) {
                (Some(interface), _) => {
                    if *interface.name != *watched.name {
                        tracing::info!(from = %watched.name, to = interface.name, "interface renamed");
                        let event = Event::auto(now_ms, word::INTERFACE_RENAMED);
                        let event = event.on(&*interface.name).with("from", &*watched.name);
                        self.teller.tell(event.with("ifindex", *ifindex));
                        watched.name = interface.name.as_str().into();
                        let at = At::interface(Stage::Interface, &watched.name);
                        gaps.close(at, now_ms, Bound::NOTHING);
                    }
                    watched.now = interface.clone();
                }
                (None, true) => {
                    tracing::info!(interface = %watched.name, ifindex, "interface is gone");
                    let event = Event::auto(now_ms, word::INTERFACE_REMOVED).on(&*watched.name);
                    self.teller.tell(event.with("ifindex", *ifindex));
                    if let Some(attachment) = watched.attachment.take() {
                        attachment.detach();
                    }
                    watched.end(now_ms, updated_ms.unwrap_or(now_ms), gaps);
                }
                (None, false) => {}
            }
        }
        self.refused.retain(|ifindex, (name, _)| {
            let is_there = found.iter().any(|found| found.ifindex == *ifindex);
            if !is_there {
                gaps.close(At::interface(Stage::Attach, name), now_ms, Bound::UNKNOWN);
            }
            is_there
        });
        for interface in found {
            if !self.is_attached(interface.ifindex) {
                self.attach(interface, (updated_ms, now_ms), dataplane, gaps);
            }
        }
        self.forget();
    }

    fn attach(
        &mut self,
        interface: Interface,
        (updated_ms, now_ms): (Option<i64>, i64),
        dataplane: &mut Dataplane,
        gaps: &mut Gaps,
    ) {
        let name: Arc<str> = interface.name.as_str().into();
        let is_tried_again = self.refused.contains_key(&interface.ifindex);
        if updated_ms.is_some() && !is_tried_again {
            let event = Event::auto(now_ms, word::INTERFACE_ADDED).on(&*name);
            self.teller.tell(event.with("ifindex", interface.ifindex));
        }
        let before = read_device(&name);
        let (since_ms, baseline) = self.begun(interface.ifindex, now_ms, before);
        let note = note(&name, since_ms, baseline, before);
        let noted = dataplane.notebook().interface(interface.ifindex, &note);
        let attached =
            noted.and_then(|()| dataplane.attach(&name, interface.ifindex, self.pins.as_ref()));
        let device = read_device(&name);
        if let Ok(attachment) = &attached {
            let times = (updated_ms, now_ms);
            self.tell_unseen(&name, interface.ifindex, times, device, &attachment.fresh, gaps);
        }
        match attached {
            Ok(attachment) => {
                let by = attachment.by.word();
                self.teller.tell(attached_to(&interface, by, now_ms));
                tracing::info!(
                    interface = %name,
                    ifindex = interface.ifindex,
                    backend = interface.backend.word(),
                    by,
                    peers = interface.peers.len(),
                    "attached"
                );
                let watched = self.by_index.entry(interface.ifindex).or_insert_with(|| Watched {
                    name: name.clone(),
                    now: interface.clone(),
                    since_ms,
                    attachment: None,
                    attached_by: by,
                    baseline,
                    device,
                    hung: (now_ms, device),
                });
                // An interface that was only out of sight goes on where it was.
                watched.name = name;
                watched.now = interface;
                watched.attached_by = by;
                watched.attachment = Some(attachment);
                watched.hung = (now_ms, device);
            }
            Err(error) => self.refuse(&interface, (updated_ms, now_ms), &error, gaps),
        }
    }

    fn refuse(
        &mut self,
        interface: &Interface,
        (updated_ms, now_ms): (Option<i64>, i64),
        error: &DataplaneError,
        gaps: &mut Gaps,
    ) {
        let name: Arc<str> = interface.name.as_str().into();
        gaps.open(
            At::interface(Stage::Attach, &name),
            updated_ms.unwrap_or(now_ms),
            format!("flowd cannot hang on it: {error}"),
        );
        self.refused.entry(interface.ifindex).or_insert_with(|| {
            tracing::error!(%error, "this interface is not watched; flowd tries again");
            // What came while flowd watched has counted from zero.
            let noted = self.notes.get(&interface.ifindex).map(|note| counters(note.device));
            let new = updated_ms.map(|_| Counters::default());
            let before = noted.or(new).unwrap_or_else(|| read_device(&name));
            (name, before)
        });
    }

    /// Tells what crossed an interface before it was attached just now, when its device has counted
    /// `device`.
    fn tell_unseen(
        &mut self,
        name: &Arc<str>,
        ifindex: u32,
        (updated_ms, now_ms): (Option<i64>, i64),
        device: Counters,
        fresh: &[Direction],
        gaps: &mut Gaps,
    ) {
        let known = self.by_index.get(&ifindex);
        let out_of_sight = known.map_or(Bound::NOTHING, |watched| watched.since_hung(device));
        gaps.close(At::interface(Stage::Interface, name), now_ms, out_of_sight);
        let noted = self.notes.get(&ifindex).map(|note| counters(note.device));
        let noted = noted.filter(|before| before.are_within(&device));
        if let (Some(before), Some(from_ms), None) = (noted, updated_ms, known)
            && !fresh.is_empty()
        {
            let at = At::interface(Stage::Detached, name);
            gaps.open(at, from_ms, taken_off(fresh));
            gaps.close(at, now_ms, bound(&growth(before, device), fresh));
        }
        gaps.close(At::interface(Stage::Detached, name), now_ms, Bound::UNKNOWN);
        match (self.refused.remove(&ifindex), updated_ms) {
            (Some((_, before)), _) => {
                let more = bound(&growth(before, device), &Direction::BOTH);
                gaps.close(At::interface(Stage::Attach, name), now_ms, more);
            }
            // It was there before flowd was, or is known: then it is told above.
            (None, None) => {
                gaps.close(At::interface(Stage::Attach, name), now_ms, Bound::UNKNOWN);
            }
            (None, Some(updated_ms))
                if known.is_none() && noted.is_none() && device.packets() > 0 =>
            {
                gaps.note(Gap {
                    gap_id: 0,
                    stage: Stage::Attach,
                    interface: Some(name.clone()),
                    peer: None,
                    opened_ms: updated_ms,
                    closed_ms: Some(now_ms),
                    bound: bound(&device, &Direction::BOTH),
                    detail: "packets crossed the new interface before flowd hung on it".to_owned(),
                });
            }
            (None, Some(_)) => {}
        }
    }

    /// Looks whether somebody took a program off, and puts it back at once.
    pub(super) fn look(&mut self, now_ms: i64, dataplane: &mut Dataplane, gaps: &mut Gaps) {
        // Before the look: what crosses in between is counted, and in the bound too.
        let Ok(devices) = DeviceCounters::read() else { return };
        let are_staying = self.are_staying();
        for (ifindex, watched) in &mut self.by_index {
            let Some(by) = watched.attachment.as_ref().map(|attachment| attachment.by) else {
                continue;
            };
            // Of an interface that is gone, the next scan tells.
            let Some(device) = devices.of(&watched.name) else { continue };
            if wireguard::ifindex_of(&watched.name) != Some(*ifindex) {
                continue;
            }
            let Ok(missing) = dataplane.missing(&watched.name, *ifindex, by) else { continue };
            // It may have gone in between, and its programs with it.
            if wireguard::ifindex_of(&watched.name) != Some(*ifindex) {
                continue;
            }
            let name = watched.name.clone();
            let at = At::interface(Stage::Detached, &name);
            if missing.is_empty() && !gaps.is_open(at) {
                watched.hung = (now_ms, device);
                continue;
            }
            if !missing.is_empty() {
                let event = Event::auto(now_ms, word::PROGRAM_TAKEN_OFF).on(&*name);
                self.teller.tell(event.with("detail", taken_off(&missing)));
            }
            gaps.open(at, watched.hung.0, taken_off(&missing));
            let back = watched.put_back(*ifindex, &missing, are_staying, |name, ifindex| {
                dataplane.attach(name, ifindex, self.pins.as_ref())
            });
            let device = read_device(&name);
            // Where nothing stays, both were off for an instant.
            let off =
                if are_staying && !missing.is_empty() { &missing[..] } else { &Direction::BOTH };
            gaps.grow(at, bound(&growth(watched.hung.1, device), off));
            watched.hung = (now_ms, device);
            match back {
                Ok(()) => {
                    self.teller.tell(attached_to(&watched.now, by.word(), now_ms));
                    gaps.close(at, now_ms, Bound::NOTHING);
                    tracing::warn!(interface = %name, "attached again");
                }
                Err(error) => tracing::debug!(%error, "still off"),
            }
        }
    }

    /// Since when flowd hangs on an interface, and what the device had counted by then that is in no
    /// table.
    fn begun(&self, ifindex: u32, now_ms: i64, device: Counters) -> (i64, Counters) {
        match self.notes.get(&ifindex) {
            // A device that counted less is another one.
            Some(note) if counters(note.device).are_within(&device) => {
                (note.since_ms, counters(note.baseline))
            }
            _ => {
                let counted = self.counted_before.get(&ifindex).copied().unwrap_or_default();
                (now_ms, less(device, counted))
            }
        }
    }

    /// The numbers of interfaces that are gone, and that others of `found` have now: `hangs` says
    /// whether a program of the daemon before is still on one.
    pub(super) fn reused(
        &self,
        found: &[Interface],
        hangs: impl Fn(&str, u32) -> bool,
    ) -> Vec<u32> {
        let is_another = |interface: &&Interface| {
            let Some(note) = self.notes.get(&interface.ifindex) else { return false };
            let is_renamed = self.name(interface.ifindex).as_deref() != Some(&*interface.name);
            let counted_less = !counters(note.device).are_within(&read_device(&interface.name));
            (is_renamed || counted_less) && !hangs(&interface.name, interface.ifindex)
        };
        found.iter().filter(is_another).map(|interface| interface.ifindex).collect()
    }

    /// The number means another interface from here on; what is in the tables under it is not what
    /// that one did.
    pub(super) fn begin_another(&mut self, ifindex: u32, counted: Counters) {
        self.notes.remove(&ifindex);
        self.counted_before.insert(ifindex, counted);
    }

    /// When flowd first hung on an interface that a daemon before noted.
    pub(super) fn noted_since_ms(&self) -> Option<i64> {
        self.notes.values().map(|note| note.since_ms).min()
    }

    /// Begins the books anew with what is in the tables, `counted`: nobody knows what has left them.
    /// Whether the devices stood still meanwhile, so that it is exact.
    pub(super) fn begin_books(&mut self, counted: impl Fn(u32) -> Counters) -> bool {
        let before: Vec<Counters> = self.by_index.values().map(|it| it.device).collect();
        for (ifindex, watched) in &mut self.by_index {
            watched.baseline = less(watched.device, counted(*ifindex));
        }
        self.read_devices();
        self.by_index.values().map(|it| it.device).eq(before)
    }

    /// Forgets the oldest of those that are gone.
    fn forget(&mut self) {
        let gone: Vec<u32> = self
            .by_index
            .iter()
            .filter(|(_, watched)| watched.attachment.is_none())
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in &gone[..gone.len().saturating_sub(REMEMBERED)] {
            self.by_index.remove(ifindex);
        }
    }

    /// Lets go of programs that stay on their interfaces.
    pub(super) fn leave_all(&mut self) {
        for watched in self.by_index.values_mut() {
            if watched.attachment.take().is_some() {
                tracing::info!(interface = %watched.name, "its programs stay, and count on; `flowd detach` takes them off");
            }
        }
    }

    /// Takes the programs off every interface; how many there were.
    pub(super) fn detach_all(&mut self) -> usize {
        let mut programs = 0;
        for watched in self.by_index.values_mut() {
            if let Some(attachment) = watched.attachment.take() {
                programs += attachment.detach();
                let event = Event::auto(now_ms(), word::PROGRAM_DETACHED).on(&*watched.name);
                self.teller.tell(event);
                tracing::info!(interface = %watched.name, "detached");
            }
        }
        programs
    }

    /// Looks at the devices' own counters.
    pub(super) fn read_devices(&mut self) {
        let Ok(counters) = DeviceCounters::read() else {
            return;
        };
        for watched in self.by_index.values_mut().filter(|watched| watched.attachment.is_some()) {
            if let Some(device) = counters.of(&watched.name) {
                watched.device = device;
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Watched)> {
        self.by_index.iter().map(|(ifindex, watched)| (*ifindex, watched))
    }

    /// Whether the interface is there, so that its flows may live.
    pub(super) fn is_attached(&self, ifindex: u32) -> bool {
        self.by_index.get(&ifindex).is_some_and(|watched| watched.attachment.is_some())
    }
}

/// What the audit log is told when flowd hangs on an interface. The hash says whether its peers and
/// their addresses are those of another time, also while no flowd ran.
fn attached_to(interface: &Interface, by: &str, now_ms: i64) -> Event {
    let mut peers: Vec<String> = interface
        .peers
        .iter()
        .map(|peer| {
            let mut nets: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
            nets.sort_unstable();
            format!("{} {}\n", peer.public_key, nets.join(","))
        })
        .collect();
    peers.sort_unstable();
    Event::auto(now_ms, word::PROGRAM_ATTACHED)
        .on(&*interface.name)
        .with("by", by)
        .with("ifindex", interface.ifindex)
        .with("peers", peers.len())
        .with("peers_sha256", Hash::of(peers.concat().as_bytes()).to_string())
}

fn taken_off(missing: &[Direction]) -> &'static str {
    match missing {
        [Direction::Ingress] => "somebody took the ingress program off the interface",
        [Direction::Egress] => "somebody took the egress program off the interface",
        _ => "somebody took both programs off the interface",
    }
}

fn same_configuration(a: &Interface, b: &Interface) -> bool {
    a.ifindex == b.ifindex
        && a.name == b.name
        && a.peers.len() == b.peers.len()
        && a.peers.iter().zip(&b.peers).all(|(a, b)| {
            a.public_key == b.public_key
                && a.endpoint == b.endpoint
                && a.allowed_ips == b.allowed_ips
        })
}

fn counters([rx_packets, rx_bytes, tx_packets, tx_bytes]: [u64; 4]) -> Counters {
    Counters { rx_packets, rx_bytes, tx_packets, tx_bytes }
}

fn read_device(name: &str) -> Counters {
    DeviceCounters::read().ok().and_then(|counters| counters.of(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Counters, Interface, Interfaces, less, note};
    use crate::wireguard::Backend;

    fn packets(rx_packets: u64) -> Counters {
        Counters { rx_packets, rx_bytes: rx_packets * 100, ..Counters::default() }
    }

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            ifindex: 7,
            backend: Backend::Kernel,
            peers: Vec::new(),
            asked: std::time::Instant::now(),
        }
    }

    /// Noted with 10 packets at the start and 50 at the last drain.
    fn interfaces() -> Interfaces {
        let mut interfaces = Interfaces::default();
        interfaces.remember(&[(7, note("nowhere0", 1_000, packets(10), packets(50)))]);
        interfaces
    }

    #[test]
    fn a_device_that_counted_less_than_at_the_last_drain_is_another_one() {
        let cases = [
            // what the device has counted, since when it is watched, what it had counted by then
            (50, (1_000, packets(10))),
            (60, (1_000, packets(10))),
            (49, (2_000, packets(49))),
            (12, (2_000, packets(12))),
            (0, (2_000, packets(0))),
        ];
        for (counted, expected) in cases {
            assert_eq!(interfaces().begun(7, 2_000, packets(counted)), expected, "{counted}");
        }
    }

    #[test]
    fn a_number_is_used_again_when_name_or_counters_say_so_and_no_program_hangs() {
        // There is no such device, which has counted nothing.
        let cases =
            [("nowhere0", false, true), ("nowhere1", false, true), ("nowhere1", true, false)];
        for (name, hangs, is_reused) in cases {
            let reused = interfaces().reused(&[interface(name)], |_, _| hangs);
            assert_eq!(!reused.is_empty(), is_reused, "{name} {hangs}");
        }
        let stranger = Interface { ifindex: 8, ..interface("nowhere0") };
        assert!(interfaces().reused(&[stranger], |_, _| false).is_empty());
    }

    #[test]
    fn books_of_another_interface_go_on_from_what_stands_in_the_tables() {
        let mut interfaces = interfaces();
        interfaces.begin_another(7, packets(45));
        assert_eq!(interfaces.name(7), None);
        let (since_ms, baseline) = interfaces.begun(7, 2_000, packets(3));
        assert_eq!(since_ms, 2_000);
        assert_eq!(less(packets(3), baseline), packets(45), "nothing of its own yet");
        assert_eq!(less(packets(9), baseline), packets(51));
    }
}
