//! Who may do what.
//!
//! - root and the user that flowd runs as may do everything
//! - members of `admin_groups` too; members of `read_groups` may read all but the audit log
//! - nobody else may do anything

use std::collections::BTreeSet;

use super::caller;
use crate::audit::Caller;

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
}

impl Access {
    /// Looks the groups up, by name or number. One that is not there has no members: that is told, and
    /// is no reason not to count.
    pub fn of(read_groups: &[String], admin_groups: &[String]) -> Self {
        let ids = |key: &str, names: &[String]| {
            let id = |name: &String| {
                let id = name.parse().ok().or_else(|| caller::group_id(name));
                if id.is_none() {
                    tracing::warn!(
                        group = name,
                        "there is no such group, which `api.{key}` names: only root and members of \
                         the others may; make it and restart flowd"
                    );
                }
                id
            };
            names.iter().filter_map(id).collect()
        };
        // SAFETY: this call has no conditions.
        let own_uid = unsafe { libc::geteuid() };
        let (readers, admins) =
            (ids("read_groups", read_groups), ids("admin_groups", admin_groups));
        Self { own_uids: [0, own_uid].into(), readers, admins }
    }

    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self::default()
    }

    /// Whether a caller is root or the user that flowd runs as.
    pub(super) fn is_own(&self, caller: &Caller) -> bool {
        self.own_uids.contains(&caller.uid)
    }

    /// Whether a caller has a right.
    pub(super) fn may(&self, caller: &Caller, right: Right) -> bool {
        let is_in = |groups: &BTreeSet<u32>| {
            groups.contains(&caller.gid) || caller.groups.iter().any(|gid| groups.contains(gid))
        };
        self.is_own(caller) || is_in(&self.admins) || (right == Right::Read && is_in(&self.readers))
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Right};
    use crate::audit::Caller;

    #[test]
    fn groups_decide_and_root_always_may() {
        let access =
            Access { own_uids: [0, 990].into(), readers: [10, 11].into(), admins: [20].into() };
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
        let access = Access::of(&["no-such-group-at-all".to_owned(), "4242".to_owned()], &[]);
        assert_eq!((access.readers, access.admins), ([4242].into(), [].into()));
    }
}
