//! Who and what a policy may name.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
};

use super::{
    Selector,
    file::File,
    problem::{Report, quoted},
};
use crate::{flows::Identity, nearest::nearest};

/// Unknown names that are compared with every known one; the others go without a suggestion.
const SUGGESTIONS: usize = 50;

/// Everybody that a policy may name.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Every peer there is.
    pub identities: &'a [Identity],
}

/// The names that the policy itself gives, and those of the peers where they are known.
pub(super) struct Names<'a> {
    people: Option<People<'a>>,
    groups: BTreeSet<&'a str>,
    resources: BTreeSet<&'a str>,
    suggestions_left: Cell<usize>,
}

struct People<'a> {
    /// By name and by public key.
    peers: HashMap<&'a str, Vec<&'a Identity>>,
    users: BTreeSet<&'a str>,
    /// That identities list.
    groups: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(file: &'a File<'_>, known: Option<&Known<'a>>) -> Self {
        Self {
            people: known.map(|known| People::of(known.identities)),
            groups: file.groups.iter().map(|group| group.name.text.as_ref()).collect(),
            resources: file.resources.iter().map(|entry| entry.name.text.as_ref()).collect(),
            suggestions_left: Cell::new(SUGGESTIONS),
        }
    }

    /// The peers that go by a name or public key; `None` where peers are not known.
    pub(super) fn peers(&self, name: &str) -> Option<&[&'a Identity]> {
        let people = self.people.as_ref()?;
        Some(people.peers.get(name).map_or(&[], Vec::as_slice))
    }

    /// Reports a selector at byte `at` that names what is not there.
    pub(super) fn check(&self, selector: &Selector, at: usize, report: &mut Report<'_>) {
        match selector {
            Selector::Any | Selector::Gateway | Selector::Net(_) => {}
            Selector::Resource(name) => {
                if !self.resources.contains(name.as_str()) {
                    let near = self.nearest(name, self.resources.iter().copied());
                    unknown("resource", name, near, "it is not in [resources]", at, report);
                }
            }
            Selector::Peer(name) => self.check_peer(name, at, report),
            Selector::User(name) => {
                if let Some(people) = &self.people
                    && !people.users.contains(name.as_str())
                {
                    let near = self.nearest(name, people.users.iter().copied());
                    unknown("user", name, near, "no peer belongs to it", at, report);
                }
            }
            Selector::Group(name) => {
                if let Some(people) = &self.people
                    && !self.groups.contains(name.as_str())
                    && !people.groups.contains(name.as_str())
                {
                    let groups = self.groups.union(&people.groups).copied();
                    let near = self.nearest(name, groups);
                    let reason = "it is not in [groups], and no peer belongs to it";
                    unknown("group", name, near, reason, at, report);
                }
            }
        }
    }

    fn check_peer(&self, name: &str, at: usize, report: &mut Report<'_>) {
        let Some(people) = &self.people else {
            return;
        };
        match people.peers.get(name).map_or(0, Vec::len) {
            0 => {
                let near = self.other_kind(name, people).or_else(|| {
                    let words = ["any", "gateway"].into_iter();
                    self.nearest(name, words.chain(people.peers.keys().copied()))
                });
                unknown("peer", name, near, "no peer has this name or public key", at, report);
            }
            1 => {}
            several => {
                let text = format!(
                    "{} is the name of {several} peers; write a public key to mean one of them",
                    quoted(name)
                );
                report.warn(at, &text);
            }
        }
    }

    /// A word without its prefix, or with a misspelt one.
    fn other_kind(&self, word: &str, people: &People<'_>) -> Option<String> {
        if let Some((prefix, name)) = word.split_once(':') {
            let prefixes = ["group", "user", "peer", "resource"];
            return nearest(prefix, prefixes).map(|prefix| format!("{prefix}:{name}"));
        }
        let kinds = [
            ("group", self.groups.contains(word) || people.groups.contains(word)),
            ("user", people.users.contains(word)),
            ("resource", self.resources.contains(word)),
        ];
        let kind = kinds.into_iter().find(|(_, contains)| *contains);
        kind.map(|(kind, _)| format!("{kind}:{word}"))
    }

    fn nearest<'n>(&self, word: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
        let left = self.suggestions_left.get().checked_sub(1)?;
        self.suggestions_left.set(left);
        nearest(word, known).map(str::to_owned)
    }
}

impl<'a> People<'a> {
    fn of(identities: &'a [Identity]) -> Self {
        let mut peers: HashMap<&str, Vec<&Identity>> = HashMap::new();
        for identity in identities {
            for name in [&identity.name, &identity.public_key] {
                let same = peers.entry(name).or_default();
                if same.iter().all(|other| other.public_key != identity.public_key) {
                    same.push(identity);
                }
            }
        }
        let users = identities.iter().filter_map(|identity| identity.user.as_deref());
        let groups = identities.iter().flat_map(|identity| &identity.groups);
        Self { peers, users: users.collect(), groups: groups.map(String::as_str).collect() }
    }
}

fn unknown(
    kind: &str,
    name: &str,
    near: Option<String>,
    reason: &str,
    at: usize,
    report: &mut Report<'_>,
) {
    let remedy = near.map(|near| format!("did you mean {}?", quoted(&near)));
    let remedy = remedy.as_deref().unwrap_or(reason);
    report.add(at, &format!("unknown {kind} {}; {remedy}", quoted(name)));
}
