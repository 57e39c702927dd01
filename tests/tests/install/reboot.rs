//! The machine restarts, and nobody touches flowd.

use std::collections::BTreeMap;

use flowd::flows::{EndReason, Stage};
use flowd_tests::wait;

use crate::gateway::Gateway;
use crate::operator::{attached, flows, gaps, read, ready};
use crate::policy;
use crate::watched::Watched;

/// The last step of its boot: notes what flowd has.
pub(crate) fn the_gateway_restarts(gateway: &mut Gateway) {
    let (watched, before) = Watched::begin(gateway);
    watched.end_whole(&before);
    gateway.notes.flows = flows(&[]).iter().map(|flow| (flow.flow_id, flow.total)).collect();
    assert!(gateway.notes.flows.len() > 2);
    gateway.save();
}

pub(crate) fn everything_comes_up_by_itself(_: &mut Gateway) {
    ready();
    for unit in ["flowd.service", "wg-quick@wg0.service"] {
        assert_eq!(read(&["systemctl", "is-active", unit]).trim(), "active", "{unit}");
    }
    attached();
}

pub(crate) fn what_was_recorded_is_still_there(gateway: &mut Gateway) {
    let noted: BTreeMap<_, _> = gateway.notes.flows.iter().copied().collect();
    let flows = flows(&[]);
    let found = flows.iter().map(|flow| (flow.flow_id, flow.total));
    let found: BTreeMap<_, _> = found.filter(|(id, _)| noted.contains_key(id)).collect();
    assert_eq!(found, noted);
    let open = flows.iter().filter(|flow| flow.end_reason.is_none()).count();
    assert_eq!(open, 0, "flows end with the boot");
    assert!(flows.iter().any(|flow| flow.end_reason == Some(EndReason::Reboot)));
    wait::until(wait::SOON, "the reboot is a gap", || {
        gaps().iter().any(|(stage, _)| *stage == Stage::Reboot)
    });
    read(&["flowctl", "segments", "verify"]);
}

pub(crate) fn the_policy_is_in_force(gateway: &mut Gateway) {
    policy::in_force(gateway);
}
