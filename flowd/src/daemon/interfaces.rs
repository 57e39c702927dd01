//! The interfaces that flowd hangs on.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::Arc,
};

use flowd_common::memory::InterfaceNote;

use crate::{
    dataplane::{Attachment, Dataplane, DataplaneError, Pins},
    flows::Counters,
    wireguard::{DeviceCounters, Interface},
};

/// Interfaces that are gone are remembered in status up to this many.
const REMEMBERED: usize = 32;

/// One interface since flowd attached to it.
pub(super) struct Watched {
    pub(super) name: Arc<str>,
    pub(super) now: Interface,
    pub(super) since_ms: i64,
    /// `None`: it is gone.
    pub(super) attachment: Option<Attachment>,
    /// How it was attached, also when it is gone.
    pub(super) attached_by: &'static str,
    /// The device's own counters when flowd attached.
    baseline: Counters,
    /// The same at the last look.
    device: Counters,
}

impl Watched {
    fn note(&self) -> InterfaceNote {
        note(&self.name, self.since_ms, self.baseline, self.device)
    }

    /// What the device counted since flowd attached.
    pub(super) fn device(&self) -> Counters {
        let since = |now: u64, then: u64| now.saturating_sub(then);
        Counters {
            rx_packets: since(self.device.rx_packets, self.baseline.rx_packets),
            rx_bytes: since(self.device.rx_bytes, self.baseline.rx_bytes),
            tx_packets: since(self.device.tx_packets, self.baseline.tx_packets),
            tx_bytes: since(self.device.tx_bytes, self.baseline.tx_bytes),
        }
    }
}

/// Every interface that is or was watched, by number.
#[derive(Default)]
pub(super) struct Interfaces {
    by_index: BTreeMap<u32, Watched>,
    /// Interfaces that could not be attached, told once.
    refused: HashSet<u32>,
    /// Where programs are kept; `None`: there is no such place.
    pins: Option<Pins>,
    /// What a daemon before noted.
    notes: BTreeMap<u32, InterfaceNote>,
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
    pub(super) fn update(&mut self, found: Vec<Interface>, now_ms: i64, dataplane: &mut Dataplane) {
        for (ifindex, watched) in &mut self.by_index {
            let still = found.iter().find(|interface| interface.ifindex == *ifindex);
            match (still, watched.attachment.is_some()) {
                (Some(interface), _) => {
                    if *interface.name != *watched.name {
                        tracing::info!(from = %watched.name, to = interface.name, "interface renamed");
                        watched.name = interface.name.as_str().into();
                    }
                    watched.now = interface.clone();
                }
                (None, true) => {
                    tracing::info!(interface = %watched.name, ifindex, "interface is gone");
                    if let Some(attachment) = watched.attachment.take() {
                        attachment.detach();
                    }
                }
                (None, false) => {}
            }
        }
        self.refused.retain(|ifindex| found.iter().any(|found| found.ifindex == *ifindex));
        for interface in found {
            if !self.is_attached(interface.ifindex) && !self.refused.contains(&interface.ifindex) {
                self.attach(interface, now_ms, dataplane);
            }
        }
        self.forget();
    }

    fn attach(&mut self, interface: Interface, now_ms: i64, dataplane: &mut Dataplane) {
        let name: Arc<str> = interface.name.as_str().into();
        let device = read_device(&name);
        let (since_ms, baseline) = self.begun(interface.ifindex, now_ms, device);
        let note = note(&name, since_ms, baseline, device);
        let noted = dataplane.notebook().interface(interface.ifindex, &note);
        let attached =
            noted.and_then(|()| dataplane.attach(&name, interface.ifindex, self.pins.as_ref()));
        match attached {
            Ok(attachment) => {
                let by = attachment.by.word();
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
                });
                // An interface that was only out of sight goes on where it was.
                watched.name = name;
                watched.now = interface;
                watched.attached_by = by;
                watched.attachment = Some(attachment);
            }
            Err(error) => {
                tracing::error!(%error, "this interface is not watched");
                self.refused.insert(interface.ifindex);
            }
        }
    }

    /// Since when flowd hangs on an interface, and what the device had counted by then.
    fn begun(&self, ifindex: u32, now_ms: i64, device: Counters) -> (i64, Counters) {
        let noted = self.notes.get(&ifindex).map(|note| (note.since_ms, counters(note.baseline)));
        // A device that counted less is another one.
        noted.filter(|(_, baseline)| baseline.are_within(&device)).unwrap_or((now_ms, device))
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
                tracing::info!(interface = %watched.name, "its programs stay, and count on");
            }
        }
    }

    /// Takes the programs off every interface; how many there were.
    pub(super) fn detach_all(&mut self) -> usize {
        let mut programs = 0;
        for watched in self.by_index.values_mut() {
            if let Some(attachment) = watched.attachment.take() {
                programs += attachment.detach();
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

fn note(name: &str, since_ms: i64, baseline: Counters, device: Counters) -> InterfaceNote {
    let mut padded = [0; 16];
    let known = name.len().min(padded.len());
    padded[..known].copy_from_slice(&name.as_bytes()[..known]);
    let numbers = |c: Counters| [c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes];
    InterfaceNote { name: padded, since_ms, baseline: numbers(baseline), device: numbers(device) }
}

fn counters([rx_packets, rx_bytes, tx_packets, tx_bytes]: [u64; 4]) -> Counters {
    Counters { rx_packets, rx_bytes, tx_packets, tx_bytes }
}

fn read_device(name: &str) -> Counters {
    DeviceCounters::read().ok().and_then(|counters| counters.of(name)).unwrap_or_default()
}
