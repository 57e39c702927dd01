//! The policy in force and those that open flows were judged under.

use std::{collections::BTreeMap, mem, net::Ipv6Addr, sync::Arc};

use flowd_common::policy::{Head, Judgement, Outcome};

use crate::{
    dataplane::{Dataplane, DataplaneError, Notebook},
    flows::{Prefixes, Verdict},
    policy::{Compiled, HostTables, Policy, World},
    wire,
};

use super::policy::size;

/// A policy with its number.
#[derive(Debug, Default)]
pub(super) struct Revision {
    /// 0: no policy.
    pub(super) number: u32,
    /// Unix milliseconds.
    pub(super) applied_ms: i64,
    /// As it was written.
    pub(super) text: String,
    pub(super) policy: Policy,
}

/// What a judgement says in words.
pub(super) struct Told {
    pub(super) verdict: Verdict,
    pub(super) enforced: bool,
    pub(super) rule: Option<Arc<str>>,
    pub(super) revision: u32,
}

/// The policy in force, as the kernel has it, and what older judgements mean.
#[derive(Default)]
pub(super) struct Verdicts {
    pub(super) revision: Arc<Revision>,
    pub(super) world: World,
    /// The kernel's own tables, for judging on the host.
    pub(super) tables: HostTables,
    pub(super) head: Head,
    pub(super) size: wire::PolicySize,
    /// What addresses are called now.
    pub(super) resources: Prefixes<Arc<str>>,
    epochs: BTreeMap<u32, Arc<Revision>>,
}

/// What the policy said, whether or not it was enforced.
pub(super) fn verdict_of(judgement: Judgement) -> Verdict {
    match judgement.outcome() {
        Outcome::Allowed => Verdict::Allow,
        Outcome::Passed | Outcome::Dropped => Verdict::Deny,
    }
}

impl Verdicts {
    /// A policy that is yet to be put into force.
    pub(super) fn of(revision: Arc<Revision>) -> Self {
        Self { revision, ..Self::default() }
    }

    /// The revision in force.
    pub(super) fn revision(&self) -> u32 {
        self.revision.number
    }

    /// Puts a compiled policy into force. On an error the old one stays.
    pub(super) fn install(
        &mut self,
        revision: Arc<Revision>,
        world: World,
        compiled: Compiled,
        dataplane: &mut Dataplane,
    ) -> Result<(), DataplaneError> {
        let epoch = dataplane.next_epoch();
        dataplane.notebook().epoch(epoch, revision.number)?;
        self.head = dataplane.install(&compiled)?;
        self.size = size(&revision.policy, &compiled);
        self.tables = compiled.into();
        self.epochs.insert(self.head.epoch(), revision.clone());
        self.resources = revision.policy.resource_names();
        self.revision = revision;
        self.world = world;
        Ok(())
    }

    /// The most specific resource around an address, IPv4 v4-mapped.
    pub(super) fn resource(&self, addr: Ipv6Addr) -> Option<Arc<str>> {
        self.resources.around(addr).cloned()
    }

    /// What a judgement says, also one of an older policy.
    pub(super) fn tell(&self, judgement: Judgement) -> Told {
        let made_under = self.epochs.get(&judgement.epoch());
        let rule = (judgement.rule() as usize).checked_sub(1);
        let rule = rule.and_then(|rule| made_under?.policy.rules.get(rule));
        Told {
            verdict: verdict_of(judgement),
            enforced: judgement.outcome() == Outcome::Dropped,
            rule: rule.map(|rule| rule.id.clone()),
            revision: made_under.map_or(0, |revision| revision.number),
        }
    }

    /// Takes what a daemon before noted of the epochs that open flows were judged in.
    pub(super) fn remember(&mut self, epoch: u32, revision: Arc<Revision>) {
        self.epochs.insert(epoch, revision);
    }

    /// Forgets what no open flow was judged under; `oldest` is the lowest epoch of any.
    pub(super) fn forget(
        &mut self,
        oldest: u32,
        notebook: &mut Notebook,
    ) -> Result<(), DataplaneError> {
        let oldest = oldest.min(self.head.epoch());
        let newer = self.epochs.split_off(&oldest);
        for (epoch, _) in mem::replace(&mut self.epochs, newer) {
            notebook.forget_epoch(epoch)?;
        }
        Ok(())
    }
}
