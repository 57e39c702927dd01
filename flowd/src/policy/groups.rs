//! `[groups]`, with the groups inside them unfolded.

use std::collections::{BTreeMap, HashMap};

use super::{
    Group, Selector, entry,
    file::Named,
    names::Names,
    problem::{Report, quoted},
};

/// Members of all groups together, those of groups inside them included. A policy of one megabyte
/// could ask for a billion.
const MAX_MEMBERS: usize = 1_000_000;

/// Groups that are told at the beginning of a cycle that is too long to be told.
const TOLD_GROUPS: usize = 4;

/// How far the walk has come with a group.
#[derive(Clone, Copy, PartialEq)]
enum Walk {
    New,
    /// On the path that is being walked.
    Open,
    Done,
}

/// A group that another one lists.
struct Inner {
    /// The byte at which it is listed.
    at: usize,
    /// Its position among the groups.
    group: usize,
}

/// Every group with all that it contains; cycles are reported.
pub(super) fn unfold(
    named: &[Named<'_>],
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> BTreeMap<String, Group> {
    let positions = named.iter().enumerate();
    let positions: HashMap<_, _> =
        positions.map(|(position, group)| (group.name.text.as_ref(), position)).collect();
    let mut groups = vec![Group::default(); named.len()];
    let mut inner: Vec<Vec<Inner>> = Vec::with_capacity(named.len());
    for (group, named) in groups.iter_mut().zip(named) {
        let mut listed = Vec::new();
        for word in &named.entries {
            match entry::member(word, names, report) {
                Some(Selector::Peer(name)) => _ = group.peers.insert(name),
                Some(Selector::User(name)) => _ = group.users.insert(name),
                Some(Selector::Group(name)) => {
                    let position = positions.get(name.as_str());
                    listed.extend(position.map(|group| Inner { at: word.at, group: *group }));
                    group.groups.insert(name);
                }
                _ => {}
            }
        }
        inner.push(listed);
    }
    walk(named, &inner, &mut groups, report);
    named.iter().map(|named| named.name.text.to_string()).zip(groups).collect()
}

/// Depth first, with a path of its own: groups may nest deeper than the stack.
fn walk(named: &[Named<'_>], inner: &[Vec<Inner>], groups: &mut [Group], report: &mut Report<'_>) {
    let mut walks = vec![Walk::New; groups.len()];
    let mut members = 0;
    for start in 0..groups.len() {
        // Each step: the group, and how many of those it lists were visited.
        let mut path = Vec::new();
        if walks[start] == Walk::New {
            walks[start] = Walk::Open;
            path.push((start, 0));
        }
        while let Some((outer, visited)) = path.last_mut() {
            let outer = *outer;
            let Some(next) = inner[outer].get(*visited) else {
                walks[outer] = Walk::Done;
                path.pop();
                continue;
            };
            match walks[next.group] {
                // It stays the next one, and is done when the path is back here.
                Walk::New => {
                    walks[next.group] = Walk::Open;
                    path.push((next.group, 0));
                    continue;
                }
                Walk::Done => {
                    let Group { peers, users, groups: listed } = &groups[next.group];
                    members += peers.len() + users.len() + listed.len();
                    if members > MAX_MEMBERS {
                        let text =
                            format!("groups inside groups have more than {MAX_MEMBERS} members");
                        report.add(next.at, &text);
                        return;
                    }
                    merge(groups, next.group, outer);
                }
                Walk::Open => {
                    let since = path.iter().position(|(group, _)| *group == next.group);
                    let cycle = path[since.unwrap_or_default()..].iter().map(|(group, _)| *group);
                    report_cycle(cycle.chain([next.group]), next.at, named, report);
                }
            }
            if let Some((_, visited)) = path.last_mut() {
                *visited += 1;
            }
        }
    }
}

fn report_cycle(
    cycle: impl Iterator<Item = usize>,
    at: usize,
    named: &[Named<'_>],
    report: &mut Report<'_>,
) {
    let mut names: Vec<_> = cycle.map(|group| named[group].name.text.as_ref()).collect();
    if names.len() > 2 * TOLD_GROUPS {
        names.splice(TOLD_GROUPS..names.len() - 2, ["…"]);
    }
    let (group, way) = (quoted(names[0]), quoted(&names.join(" → ")));
    report.add(at, &format!("group {group} contains itself: {way}"));
}

/// Puts what is in `inner` into `outer` too.
fn merge(groups: &mut [Group], inner: usize, outer: usize) {
    let Group { peers, users, groups: listed } = groups[inner].clone();
    groups[outer].peers.extend(peers);
    groups[outer].users.extend(users);
    groups[outer].groups.extend(listed);
}
