//! One interface that flowd hangs on, or did, and what its device counted meanwhile.

use std::sync::Arc;

use flowd_common::{counter::Direction, memory::InterfaceNote};

use super::gaps::{At, Gaps};
use crate::{
    dataplane::{Attachment, DataplaneError},
    flows::{Bound, Counters, Stage},
    wireguard::Interface,
};

/// One interface since flowd attached to it.
pub(super) struct Watched {
    pub(super) name: Arc<str>,
    pub(super) now: Interface,
    pub(super) since_ms: i64,
    /// `None`: it is gone.
    pub(super) attachment: Option<Attachment>,
    /// How it was attached, also when it is gone.
    pub(super) attached_by: &'static str,
    /// The device's own counters when flowd attached, less what stood in the tables by then: so it may
    /// be below zero, and wraps.
    pub(super) baseline: Counters,
    /// The same at the last look.
    pub(super) device: Counters,
    /// When both programs were last seen on it, and what the device had counted before that look.
    pub(super) hung: (i64, Counters),
}

impl Watched {
    /// For the next daemon.
    pub(super) fn note(&self) -> InterfaceNote {
        note(&self.name, self.since_ms, self.baseline, self.device)
    }

    /// What the device counted since flowd attached.
    pub(super) fn device(&self) -> Counters {
        less(self.device, self.baseline)
    }

    /// What crossed the interface while no program hung on it, when its device has counted `device`.
    pub(super) fn since_hung(&self, device: Counters) -> Bound {
        bound(&growth(self.hung.1, device), &Direction::BOTH)
    }

    /// Puts missing programs back; those that are there hang again too. On an error what is left
    /// stays.
    pub(super) fn put_back(
        &mut self,
        ifindex: u32,
        missing: &[Direction],
        are_staying: bool,
        mut attach: impl FnMut(&str, u32) -> Result<Attachment, DataplaneError>,
    ) -> Result<(), DataplaneError> {
        if missing.is_empty() {
            return Ok(());
        }
        let Some(old) = self.attachment.take() else { return Ok(()) };
        if are_staying {
            // What is there is replaced, each in one instant, by way of the place where it is kept.
            match attach(&self.name, ifindex) {
                // What replaced the old one's programs, the old one does not take off.
                Ok(new) => self.attachment = Some(new),
                Err(error) => {
                    self.attachment = Some(old);
                    return Err(error);
                }
            }
        } else {
            // Two at once would count twice.
            old.detach();
            self.attachment = Some(attach(&self.name, ifindex)?);
        }
        Ok(())
    }

    /// The interface is gone; `seen_ms` is when it was last there.
    pub(super) fn end(&mut self, now_ms: i64, seen_ms: i64, gaps: &mut Gaps) {
        // Its device took along what it had counted.
        gaps.close(At::interface(Stage::Detached, &self.name), now_ms, Bound::UNKNOWN);
        let at = At::interface(Stage::Interface, &self.name);
        gaps.open(at, seen_ms, "the interface was gone");
    }
}

/// What a device counted in between.
pub(super) fn growth(before: Counters, now: Counters) -> Counters {
    Counters {
        rx_packets: now.rx_packets.saturating_sub(before.rx_packets),
        rx_bytes: now.rx_bytes.saturating_sub(before.rx_bytes),
        tx_packets: now.tx_packets.saturating_sub(before.tx_packets),
        tx_bytes: now.tx_bytes.saturating_sub(before.tx_bytes),
    }
}

/// What is left of `device`, or below zero, without `part`.
pub(super) fn less(device: Counters, part: Counters) -> Counters {
    Counters {
        rx_packets: device.rx_packets.wrapping_sub(part.rx_packets),
        rx_bytes: device.rx_bytes.wrapping_sub(part.rx_bytes),
        tx_packets: device.tx_packets.wrapping_sub(part.tx_packets),
        tx_bytes: device.tx_bytes.wrapping_sub(part.tx_bytes),
    }
}

/// At most so much is missing, when nobody counted in these directions.
pub(super) fn bound(device: &Counters, off: &[Direction]) -> Bound {
    off.iter().fold(Bound::NOTHING, |sum, direction| {
        sum.and(match direction {
            Direction::Ingress => Bound::of(device.rx_packets, device.rx_bytes),
            Direction::Egress => Bound::of(device.tx_packets, device.tx_bytes),
        })
    })
}

/// What the next daemon is told of an interface.
pub(super) fn note(
    name: &str,
    since_ms: i64,
    baseline: Counters,
    device: Counters,
) -> InterfaceNote {
    let mut padded = [0; 16];
    let known = name.len().min(padded.len());
    padded[..known].copy_from_slice(&name.as_bytes()[..known]);
    let numbers = |c: Counters| [c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes];
    InterfaceNote { name: padded, since_ms, baseline: numbers(baseline), device: numbers(device) }
}
