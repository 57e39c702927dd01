//! A policy and its rules, checked.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Endpoint, Group, Selector, Service, Services};
use crate::flows::{Prefixes, Verdict};

/// What becomes of a denied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It passes; the flow says that it is denied.
    #[default]
    Observe,
    /// It is dropped.
    Enforce,
}

impl Mode {
    /// The word in files, JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// Rules in their order; the first that matches decides, else the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of a denied packet.
    pub mode: Mode,
    /// What is said of a flow that no rule matches.
    pub default: Verdict,
    /// `[groups]`, with the groups inside them unfolded.
    pub groups: BTreeMap<String, Group>,
    /// `[resources]`.
    pub resources: BTreeMap<String, Vec<IpNet>>,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the policy; stands in records.
    pub id: Arc<str>,
    /// What it says.
    pub action: Verdict,
    /// Who opens the flow: any of these.
    pub from: Vec<Selector>,
    /// To whom: any of these.
    pub to: Vec<Selector>,
    /// Protocols with their destination ports or ICMP types.
    pub services: Services,
    /// Where the rule begins in the file, counted from 1.
    pub line: usize,
}

impl Default for Policy {
    /// The policy of a gateway that has none: everything may pass.
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            default: Verdict::Allow,
            groups: BTreeMap::new(),
            resources: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl Policy {
    /// The position of the rule that decides about a flow that `from` opens to `to`; `None`: the
    /// default does.
    ///
    /// This is the specification: one rule after the other. What the kernel runs is compiled from
    /// the same rules and agrees with it.
    pub fn decide(
        &self,
        from: &Endpoint<'_>,
        to: &Endpoint<'_>,
        service: Service,
    ) -> Option<usize> {
        self.rules.iter().position(|rule| self.matches(rule, from, to, service))
    }

    /// What the deciding rule says, or the default.
    pub fn verdict(&self, decision: Option<usize>) -> Verdict {
        decision.map_or(self.default, |rule| self.rules[rule].action)
    }

    /// Whether one rule speaks of the flow.
    pub fn matches(
        &self,
        rule: &Rule,
        from: &Endpoint<'_>,
        to: &Endpoint<'_>,
        service: Service,
    ) -> bool {
        rule.services.contains(service)
            && self.selects(&rule.from, from)
            && self.selects(&rule.to, to)
    }

    /// What addresses are called: by the resource with the longest prefix around them, the
    /// alphabetically first of equals.
    pub fn resource_names(&self) -> Prefixes<Arc<str>> {
        let mut names = Prefixes::default();
        // The last one inserted stays.
        for (name, nets) in self.resources.iter().rev() {
            let name: Arc<str> = name.as_str().into();
            for net in nets {
                names.insert_net(net, name.clone());
            }
        }
        names
    }

    /// Whether any of the selectors means the endpoint.
    pub fn selects(&self, selectors: &[Selector], endpoint: &Endpoint<'_>) -> bool {
        selectors.iter().any(|selector| selector.matches(endpoint, self))
    }
}
