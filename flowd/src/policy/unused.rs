//! Groups and resources that no rule uses.

use std::collections::BTreeSet;

use super::{
    Policy, Selector,
    file::File,
    problem::{Report, quoted},
};

pub(super) fn warn(file: &File<'_>, policy: &Policy, report: &mut Report<'_>) {
    let mut groups = BTreeSet::new();
    let mut resources = BTreeSet::new();
    for selector in policy.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to)) {
        match selector {
            Selector::Resource(name) => _ = resources.insert(name.as_str()),
            Selector::Group(name) => {
                // Those inside it are unfolded: they stand here, however deep they are.
                if groups.insert(name.as_str())
                    && let Some(group) = policy.groups.get(name)
                {
                    groups.extend(group.groups.iter().map(String::as_str));
                }
            }
            Selector::Any
            | Selector::Gateway
            | Selector::Net(_)
            | Selector::Peer(_)
            | Selector::User(_) => {}
        }
    }
    for (kind, named, used) in
        [("group", &file.groups, groups), ("resource", &file.resources, resources)]
    {
        for unused in named.iter().filter(|named| !used.contains(named.name.text.as_ref())) {
            let name = quoted(&unused.name.text);
            report.warn(unused.name.at, &format!("{kind} {name} is never used"));
        }
    }
}
