//! Watching for interfaces and peers that come and go.
//!
//! A thread of its own, because a control socket may hang: then names and peers stay as they were,
//! and counting goes on.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Interface, addresses, effort, scan};

/// How long an interface or a peer may be there before flowd notices.
const INTERVAL: Duration = Duration::from_millis(500);
/// A scan of many thousand peers takes long; the pause after it is so many times as long, so that
/// scanning takes at most a twentieth of a core. What counts is what the scan computes: one that was
/// stopped for seconds, or waited for a socket, would make the next one minutes late.
const PAUSE: u32 = 20;

/// Which interfaces to watch.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// Names or globs; none: every interface.
    pub fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether the interface called `name` is wanted.
    pub fn want(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| glob_match::glob_match(pattern, name))
    }

    /// Entries that are names, not patterns.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| !crate::config::is_glob(name))
    }
}

/// Scans now and again until `stop` is set, and gives what it finds to `publish`, which says
/// whether anybody still listens.
pub fn watch(
    names: Names,
    stop: Arc<AtomicBool>,
    mut publish: impl FnMut(Vec<Interface>, BTreeSet<IpAddr>) -> bool + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("wireguard".to_owned()).spawn(move || {
        let mut failing = false;
        let mut before = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let before_it = effort::spent();
            match scan(&before).and_then(|found| Ok((found, addresses()?))) {
                Ok((mut interfaces, gateway)) => {
                    failing = false;
                    interfaces.retain(|interface| names.want(&interface.name));
                    before.clone_from(&interfaces);
                    if !publish(interfaces, gateway) {
                        return;
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "cannot read WireGuard's interfaces; peers stay as they were");
                }
                Err(_) => {}
            }
            let pause = (effort::spent() - before_it) * PAUSE;
            thread::park_timeout(INTERVAL.max(pause));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_and_globs_narrow_and_nothing_means_all() {
        let cases: [(&[&str], &str, bool); 6] = [
            (&[], "wg0", true),
            (&["wg0"], "wg0", true),
            (&["wg0"], "wg01", false),
            (&["wg*"], "wg-site", true),
            (&["wg?", "vpn"], "vpn", true),
            (&["wg[0-3]"], "wg7", false),
        ];
        for (patterns, name, wanted) in cases {
            let names = Names::new(patterns.iter().map(|text| (*text).to_owned()).collect());
            assert_eq!(names.want(name), wanted, "{patterns:?} {name}");
        }
    }
}
