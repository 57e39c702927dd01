//! The policy that a starting daemon goes on with.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use super::{
    DaemonError,
    collector::now_ms,
    peers::Peers,
    revisions::{Revisions, Written},
    system,
    verdicts::Revision,
};
use crate::{
    config::Config,
    flows::Identity,
    identity::Names,
    policy::{self, Checked, Known, Problem, compile},
    wireguard,
};

/// The configured file where it says something new, else what was in force before. A wrong file
/// leaves what was in force, and refuses the start where nothing was.
pub(super) fn policy(
    config: &Config,
    revisions: &Revisions,
    found: &[wireguard::Interface],
    gateway: &BTreeSet<IpAddr>,
    names: &Names,
) -> Result<Arc<Revision>, DaemonError> {
    let in_force = revisions.newest().map_err(system("read the policy that was in force"))?;
    let path = config.policy_file.display();
    let text = match std::fs::read_to_string(&config.policy_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(in_force),
        Err(error) => {
            return in_force_or(in_force, vec![format!("cannot read policy {path}: {error}")]);
        }
    };
    if !revisions.is_news(&text) {
        return Ok(in_force);
    }
    let identities = everybody(found, names);
    let fits = |checked: Checked| {
        let mut peers = Peers::new(names.clone());
        peers.update(found, gateway.clone());
        match compile(&checked.policy, &peers.world(), &config.limits) {
            Ok(_) => Ok(checked),
            Err(error) => Err(vec![Problem { line: 1, column: 1, text: error.to_string() }]),
        }
    };
    match policy::parse(&text, Some(&Known { identities: &identities })).and_then(fits) {
        Ok(checked) => {
            for warning in &checked.warnings {
                tracing::warn!("{path}:{warning}");
            }
            // In this order: a file that is not kept yet must stay news.
            let written = Written { text, policy: checked.policy };
            let kept = revisions
                .keep(in_force.number, written, now_ms())
                .map_err(system("keep the policy"))?;
            revisions.note(&kept.text).map_err(system("keep the policy"))?;
            Ok(kept)
        }
        Err(problems) => in_force_or(
            in_force,
            problems.iter().map(|problem| format!("{path}:{problem}")).collect(),
        ),
    }
}

/// What was in force, if there was anything, in spite of what is wrong with the file.
fn in_force_or(
    in_force: Arc<Revision>,
    problems: Vec<String>,
) -> Result<Arc<Revision>, DaemonError> {
    if in_force.number == 0 {
        return Err(DaemonError::Policy(problems.join("\n")));
    }
    for problem in problems {
        tracing::error!("{problem}");
    }
    tracing::error!(revision = in_force.number, "the policy that was in force stays");
    Ok(in_force)
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::{Config, Names, Revisions, policy};
    use crate::wireguard::{Backend, Interface};

    fn config(dir: &Path) -> Config {
        let mut config = Config::parse("gateway = \"gw\"\n").unwrap();
        config.store = dir.to_owned();
        config.policy_file = dir.join("policy.toml");
        config
    }

    #[test]
    fn a_file_that_was_not_kept_is_news_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let revisions = Revisions::open(&config.store).unwrap();
        let start = || policy(&config, &revisions, &[], &BTreeSet::new(), &Names::default());
        fs::write(&config.policy_file, "mode = \"enforce\"\ndefault = \"deny\"\n").unwrap();
        // The disk is full at the text, then at the note that the file has been looked at.
        for (blocked, kept) in [("new", 0), ("file.sha256", 1)] {
            let blocked = dir.path().join("policy").join(blocked);
            fs::create_dir(&blocked).unwrap();
            start().unwrap_err();
            assert_eq!(revisions.newest().unwrap().number, kept);
            fs::remove_dir(&blocked).unwrap();
        }
        assert_eq!(start().unwrap().number, 2);
        assert_eq!(start().unwrap().number, 2);
    }

    #[test]
    fn a_wrong_file_leaves_what_was_in_force_and_is_told_at_every_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.limits.intervals = 10;
        let revisions = Revisions::open(&config.store).unwrap();
        let wg0 = Interface {
            name: "wg0".to_owned(),
            ifindex: 7,
            backend: Backend::Kernel,
            peers: Vec::new(),
        };
        let start = || {
            let found = std::slice::from_ref(&wg0);
            policy(&config, &revisions, found, &BTreeSet::new(), &Names::default())
        };
        let too_large = "[[rules]]\nid = 'a'\naction = 'deny'\nfrom = ['any']\nto = ['any']\n\
                         protocols = ['tcp']\nports = [1, 3, 5, 7, 9, 11, 13]\n";
        let wrong: [&[u8]; 3] = [b"mode = 7\n", b"\xff\n", too_large.as_bytes()];
        for text in wrong {
            fs::write(&config.policy_file, text).unwrap();
            for _ in 0..2 {
                start().unwrap_err();
            }
        }
        fs::write(&config.policy_file, "mode = \"enforce\"\n").unwrap();
        assert_eq!(start().unwrap().number, 1);
        for text in wrong {
            fs::write(&config.policy_file, text).unwrap();
            for _ in 0..2 {
                assert_eq!(start().unwrap().number, 1);
            }
        }
    }
}
