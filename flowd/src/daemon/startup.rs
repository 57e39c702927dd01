//! What a starting daemon goes on with: the policy, and the place of the pins.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    DaemonError,
    collector::now_ms,
    revisions::{Revisions, Written},
    system,
    verdicts::Revision,
};
use crate::{
    config::Config,
    dataplane::Pins,
    flows::Identity,
    identity::Names,
    policy::{self, Known},
    wireguard,
};

/// The configured file where it says something new, else what was in force before. A wrong file
/// leaves what was in force, and refuses the start where nothing was.
pub(super) fn policy(
    config: &Config,
    revisions: &Revisions,
    found: &[wireguard::Interface],
    names: &Names,
) -> Result<Arc<Revision>, DaemonError> {
    let in_force = revisions.newest().map_err(system("read the policy that was in force"))?;
    let path = config.policy_file.display();
    let text = match std::fs::read_to_string(&config.policy_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(in_force),
        Err(error) => {
            return Err(DaemonError::Policy(format!("cannot read policy {path}: {error}")));
        }
    };
    if !revisions.is_news(&text) {
        return Ok(in_force);
    }
    let identities = everybody(found, names);
    match policy::parse(&text, Some(&Known { identities: &identities })) {
        Ok(checked) => {
            for warning in &checked.warnings {
                tracing::warn!("{path}:{warning}");
            }
            revisions.note(&text).map_err(system("keep the policy"))?;
            let written = Written { text, policy: checked.policy };
            revisions.keep(in_force.number, written, now_ms()).map_err(system("keep the policy"))
        }
        Err(problems) if in_force.number == 0 => {
            let lines: Vec<_> =
                problems.iter().map(|problem| format!("{path}:{problem}")).collect();
            Err(DaemonError::Policy(lines.join("\n")))
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!("{path}:{problem}");
            }
            tracing::error!(revision = in_force.number, "the policy that was in force stays");
            Ok(in_force)
        }
    }
}

/// Where programs are kept; `None` where there is no such place, which matters when a policy is
/// enforced, and is told then.
pub(super) fn pins(config: &Config) -> Option<Pins> {
    match Pins::open(&config.pins) {
        Ok(pins) => Some(pins),
        Err(error) => {
            tracing::debug!(%error, "no place for pins");
            None
        }
    }
}

/// Everybody that a policy may name.
fn everybody(found: &[wireguard::Interface], names: &Names) -> Vec<Identity> {
    let peers = found.iter().flat_map(|interface| &interface.peers);
    let present = peers.map(|peer| names.identity(&peer.public_key, None));
    let all = names.known().chain(present);
    let by_key: BTreeMap<String, Identity> =
        all.map(|identity| (identity.public_key.clone(), identity)).collect();
    by_key.into_values().collect()
}
