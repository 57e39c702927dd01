//! Who may do what.
//!
//! - root and the user that flowd runs as may do everything
//! - members of `admin_groups` too; members of `read_groups` may read all but the audit log
//! - members of the group of a grant may ask about one peer or user at a time (`grant.rs`)
//! - nobody else may do anything

use std::collections::BTreeSet;

use super::caller;
use crate::{audit::Caller, config::Grant};

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Look at flows, peers, policy, and how the daemon is.
    Read,
    /// Change what is in force, or see who did what.
    Administer,
}

/// The groups that may, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Root, and whoever flowd runs as.
    own_uids: BTreeSet<u32>,
    readers: BTreeSet<u32>,
    admins: BTreeSet<u32>,
    /// With their groups, in the order of the configuration.
    grants: Vec<(u32, Grant)>,
}

impl Access {
    /// Looks the groups up, by name or number. One that is not there has no members: that is told, and
    /// is no reason not to count.
    pub fn of(read_groups: &[String], admin_groups: &[String], grants: &[Grant]) -> Self {
        let ids = |key, names: &[String]| names.iter().filter_map(|name| id(key, name)).collect();
        // SAFETY: this call has no conditions.
        let own_uid = unsafe { libc::geteuid() };
        let (readers, admins) =
            (ids("read_groups", read_groups), ids("admin_groups", admin_groups));
        let grants = grants.iter();
        let grants = grants.filter_map(|grant| Some((id("grants", &grant.group)?, grant.clone())));
        Self { own_uids: [0, own_uid].into(), readers, admins, grants: grants.collect() }
    }

    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self::default()
    }

    /// Whoever runs this test, root too, may read and no more.
    #[cfg(test)]
    pub(super) fn reading() -> Self {
        // SAFETY: this call has no conditions.
        let own_gid = unsafe { libc::getegid() };
        Self { readers: [own_gid].into(), ..Self::default() }
    }

    /// Whoever runs this test, root too, may do what is granted and no more.
    #[cfg(test)]
    pub(super) fn granting(grant: Grant) -> Self {
        // SAFETY: this call has no conditions.
        let own_gid = unsafe { libc::getegid() };
        Self { grants: vec![(own_gid, grant)], ..Self::default() }
    }

    /// Whether a caller is root or the user that flowd runs as.
    pub(super) fn is_own(&self, caller: &Caller) -> bool {
        self.own_uids.contains(&caller.uid)
    }

    /// Whether a caller has a right.
    pub(super) fn may(&self, caller: &Caller, right: Right) -> bool {
        let is_in = |groups: &BTreeSet<u32>| groups.iter().any(|group| is_in(caller, *group));
        self.is_own(caller) || is_in(&self.admins) || (right == Right::Read && is_in(&self.readers))
    }

    /// What is granted to a caller who may not read everything.
    pub(super) fn grant(&self, caller: &Caller) -> Option<&Grant> {
        self.grants.iter().find(|(group, _)| is_in(caller, *group)).map(|(_, grant)| grant)
    }
}

fn is_in(caller: &Caller, group: u32) -> bool {
    caller.gid == group || caller.groups.contains(&group)
}

fn id(key: &str, name: &str) -> Option<u32> {
    let id = name.parse().ok().or_else(|| caller::group_id(name));
    if id.is_none() {
        tracing::warn!(
            group = name,
            "there is no such group, which `api.{key}` names: only root and members of the others \
             may; make it and restart flowd"
        );
    }
    id
}

#[cfg(test)]
mod tests {
    use super::{Access, Right};
    use crate::{audit::Caller, config::Grant};

    #[test]
    fn groups_decide_and_root_always_may() {
        let access = Access {
            own_uids: [0, 990].into(),
            readers: [10, 11].into(),
            admins: [20].into(),
            grants: Vec::new(),
        };
        let caller = |uid, gid, groups: &[u32]| Caller {
            uid,
            gid,
            groups: groups.to_vec(),
            ..Caller::default()
        };
        let cases = [
            // who, may read, may administer
            (caller(0, 0, &[]), true, true),
            (caller(990, 990, &[]), true, true),
            (caller(1000, 10, &[]), true, false),
            (caller(1000, 1000, &[7, 11]), true, false),
            (caller(1000, 1000, &[20]), true, true),
            (caller(1000, 1000, &[]), false, false),
            (caller(1000, 0, &[0, 990]), false, false),
        ];
        for (caller, reads, administers) in cases {
            let may = [Right::Read, Right::Administer].map(|right| access.may(&caller, right));
            assert_eq!(may, [reads, administers], "{caller:?}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_has_no_members() {
        let access = Access::of(&["no-such-group-at-all".to_owned(), "4242".to_owned()], &[], &[]);
        assert_eq!((access.readers, access.admins), ([4242].into(), [].into()));
    }

    #[test]
    fn the_first_grant_of_a_callers_groups_holds() {
        let grant = |group: &str, addresses| Grant {
            group: group.to_owned(),
            peers: Vec::new(),
            users: Vec::new(),
            addresses,
        };
        let access = Access::of(&[], &[], &[grant("31", false), grant("30", true)]);
        let cases = [
            (&[30][..], Some(true)),
            (&[31], Some(false)),
            (&[30, 31], Some(false)),
            (&[32], None),
        ];
        for (groups, expected) in cases {
            let caller =
                Caller { uid: 1000, gid: 1000, groups: groups.to_vec(), ..Caller::default() };
            let granted = access.grant(&caller).map(|grant| grant.addresses);
            assert_eq!(granted, expected, "{groups:?}");
            assert!(!access.may(&caller, Right::Read));
        }
    }
}
