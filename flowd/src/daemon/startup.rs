//! What a starting daemon goes on with: the policy, and the place of the pins.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{DaemonError, revisions::Revisions, system, verdicts::Revision};
use crate::{
    config::Config,
    dataplane::{DataplaneError, Notes, OldTables, Pins, Tables},
    flows::Identity,
    identity::Names,
    policy::{self, Known},
    store::State,
    wireguard,
};

/// The policy that was in force, and the configured file's text where it says something new. A
/// wrong file refuses the start where no policy was in force; else it is told when it is taken.
pub(super) fn policy(
    config: &Config,
    revisions: &Revisions,
    found: &[wireguard::Interface],
    names: &Names,
) -> Result<(Arc<Revision>, Option<String>), DaemonError> {
    let in_force = revisions.newest().map_err(system("read the policy that was in force"))?;
    let path = config.policy_file.display();
    let text = match std::fs::read_to_string(&config.policy_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((in_force, None)),
        Err(error) if in_force.number == 0 => {
            return Err(DaemonError::Policy(format!("cannot read policy {path}: {error}")));
        }
        Err(error) => {
            tracing::error!(%error, file = %path, "the policy that was in force stays");
            return Ok((in_force, None));
        }
    };
    if text == in_force.text {
        revisions.note(&text).map_err(system("keep the policy"))?;
    }
    if !revisions.is_news(&text) {
        return Ok((in_force, None));
    }
    if in_force.number == 0 {
        let identities = everybody(found, names);
        if let Err(problems) = policy::parse(&text, Some(&Known { identities: &identities })) {
            let lines: Vec<_> =
                problems.iter().map(|problem| format!("{path}:{problem}")).collect();
            return Err(DaemonError::Policy(lines.join("\n")));
        }
    }
    Ok((in_force, Some(text)))
}

/// Where programs are kept; `None` where there is no such place, which matters when a policy is
/// enforced, and is told then.
pub(super) fn pins(config: &Config) -> Option<Pins> {
    match Pins::open(&config.pins) {
        Ok(pins) => Some(pins),
        Err(error) => {
            tracing::info!(%error, "no place for pins");
            None
        }
    }
}

/// What a flowd before left in the kernel.
#[derive(Default)]
pub(super) struct Inherited {
    /// Where the tables stay; `None`: nowhere.
    pub(super) tables: Option<Tables>,
    /// Whether a daemon has used them.
    pub(super) are_adopted: bool,
    /// Whether nobody knows what of `old` is recorded.
    pub(super) is_lost: bool,
    /// What it noted.
    pub(super) notes: Notes,
    /// Tables of another layout or size, oldest first.
    pub(super) old: Vec<OldTables>,
    /// Of this boot.
    pub(super) boot_id: String,
}

/// Looks what a flowd before left in the kernel. Its tables are not gone on with where the ledger of
/// the store, which `state` tells of, is lost, or has gone on with tables in another place since:
/// nobody knows what of them is recorded.
pub(super) fn inherited(
    pins: Option<&Pins>,
    table_size: u32,
    state: &State,
) -> Result<Inherited, DaemonError> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(system("read the number of this boot"))?
        .trim()
        .to_owned();
    let Some(pins) = pins else {
        return Ok(Inherited { boot_id, ..Inherited::default() });
    };
    let is_of_this_boot = state.boot_id.as_deref() == Some(&boot_id);
    let is_elsewhere = is_of_this_boot && !state.tables.as_ref().is_some_and(|it| pins.hold(it));
    let is_lost = state.is_lost() || is_elsewhere;
    let (tables, others) =
        pins.tables(table_size, is_lost).map_err(system("list the tables of a flowd before"))?;
    let failed = |error: DataplaneError| DaemonError::TakeOver(error.to_string());
    let are_adopted = !tables.are_new();
    let mut old = Vec::new();
    for other in &others {
        match OldTables::open(other).map_err(failed)? {
            Some(tables) => old.push(tables),
            None => other.remove().map_err(system("remove tables that were never used"))?,
        }
    }
    let mut notes = Notes::default();
    if are_adopted {
        notes = Notes::read(&tables).map_err(failed)?;
    }
    // A daemon that was killed early has not told its tables everything.
    old.iter().rev().for_each(|old| notes.fill_up(&old.notes));
    let is_lost = is_lost && !old.is_empty();
    Ok(Inherited { tables: Some(tables), are_adopted, is_lost, notes, old, boot_id })
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
