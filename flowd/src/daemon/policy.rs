//! What the drain thread answers about policies, and how one comes into force.
//!
//! - parse and check, compile, and look what it would cut: up to here nothing has changed
//! - keep its text under the next number, safe on the disk
//! - put it into force in the kernel, for every packet at once
//! - judge the open flows again and end those with another outcome

use std::sync::Arc;

use flowd_common::{
    addr::Addr,
    flow::{FlowKey, Initiator, RETIRED},
    packet::is_icmp_error,
    policy::{Head, Judgement, Outcome, Wanted, judge},
};

use super::{
    collector::{Collector, now_ms},
    cut::Cut,
    ledger::{View, total},
    revisions::Written,
    verdicts::Revision,
};
use crate::{
    audit::{self, Actor, Event, Hash, word},
    dataplane::DataplaneError,
    flows::{Counters, FlowId, Record, Tally},
    live::{Connection, NotApplied},
    policy::{Checked, Compiled, HostTables, Known, Mode, Policy, Problem, World, compile, parse},
    wire::{self, Timestamp},
    wireguard,
};

/// Cut flows that an answer lists; it counts all.
const LISTED: usize = 1_000;
const TCP: u8 = 6;

/// A policy that is right and fits, not in force yet.
struct Candidate {
    checked: Checked,
    compiled: Compiled,
    world: World,
}

impl Collector {
    /// The policy in force, with how often each rule decided.
    pub(super) fn policy(&mut self) -> Result<wire::Policy, DataplaneError> {
        let mut hits = self.recorder.hits.clone();
        self.for_each_open(|record| hits.count(&record))?;
        let Revision { number, applied_ms, text, policy } = &*self.verdicts.revision;
        let of = |id: Option<&str>| hits.of(*number, id);
        let rules = policy.rules.iter().map(|rule| wire::RuleHits {
            id: Some(rule.id.to_string()),
            action: rule.action,
            hits: of(Some(&rule.id)),
        });
        let default = wire::RuleHits { id: None, action: policy.default, hits: of(None) };
        Ok(wire::Policy {
            revision: *number,
            mode: policy.mode,
            default: policy.default,
            applied: (*number > 0).then_some(Timestamp(*applied_ms)),
            since: Timestamp((*applied_ms).max(self.started_ms)),
            rules: rules.chain([default]).collect(),
            size: self.verdicts.size,
            text: text.clone(),
        })
    }

    /// What a policy would do.
    pub(super) fn check_policy(
        &mut self,
        text: &str,
        caller: Option<Connection>,
    ) -> Result<wire::PolicyReport, DataplaneError> {
        match self.candidate(text) {
            Ok(candidate) => self.preview(&candidate, caller),
            Err(problems) => Ok(refusal(problems)),
        }
    }

    /// Puts a policy into force, unless it is wrong or cuts the caller: then the report has no
    /// revision.
    pub(super) fn apply_policy(
        &mut self,
        text: String,
        caller: Option<Connection>,
    ) -> Result<wire::PolicyReport, NotApplied> {
        let candidate = match self.candidate(&text) {
            Ok(candidate) => candidate,
            Err(problems) => return Ok(refusal(problems)),
        };
        if caller.is_some() {
            let preview = self.preview(&candidate, caller)?;
            if preview.cuts_caller.is_some() {
                return Ok(preview);
            }
        }
        let Candidate { checked: Checked { policy, mut warnings }, compiled, world } = candidate;
        let (mode, size) = (policy.mode, size(&policy, &compiled));
        let before = self.verdicts.revision();
        let revision = self
            .revisions
            .keep(before, Written { text, policy }, now_ms())
            .map_err(NotApplied::NotKept)?;
        failpoint!("policy-kept");
        if let Err(error) = self.peers.note(self.dataplane.notebook()) {
            self.revisions.take_back(&revision);
            return Err(error.into());
        }
        let installed =
            self.verdicts.install(revision.clone(), world, compiled, &mut self.dataplane);
        if let Err(error) = installed {
            self.revisions.take_back(&revision);
            return Err(error.into());
        }
        failpoint!("policy-installed");
        self.recorder.hits.clear();
        let cut = self.judge_open_flows().unwrap_or_else(|error| {
            tracing::error!(%error, "open flows are judged at their next packet");
            let text = format!("open flows are judged at their next packet: {error}");
            warnings.push(Problem { line: 1, column: 1, text });
            Vec::new()
        });
        self.tell_of_cut(&cut);
        let denied: Vec<&Cut> = cut.iter().filter(|cut| cut.now.is_denied()).collect();
        tracing::info!(
            revision = revision.number,
            mode = mode.word(),
            rules = size.rules,
            cut_flows = denied.len(),
            "policy in force"
        );
        Ok(wire::PolicyReport {
            problems: Vec::new(),
            warnings,
            revision: Some(revision.number),
            mode,
            size,
            cut_flows: denied.len() as u64,
            cut: denied
                .iter()
                .take(LISTED)
                .map(|cut| self.cut_flow(&cut.record, cut.now, &revision.policy))
                .collect(),
            cuts_caller: None,
        })
    }

    /// Puts the configured file into force when it says something new; what is wrong with it is
    /// told, and the policy in force stays. Whether the file is in force or was looked at before.
    pub(super) fn take_policy_file(&mut self, text: &str) -> bool {
        let path = self.config.policy_file.display().to_string();
        if text == self.verdicts.revision.text
            && let Err(error) = self.revisions.note(text)
        {
            tracing::warn!(%error, file = path, "it will be read again as news");
            return true;
        }
        if !self.revisions.is_news(text) {
            return true;
        }
        let before = self.verdicts.revision.clone();
        let applied = self.apply_policy(text.to_owned(), None);
        self.tell_of_file(&before, text, applied.as_ref().ok().and_then(|report| report.revision));
        match applied {
            Ok(report) => {
                for warning in &report.warnings {
                    tracing::warn!("{path}:{warning}");
                }
                for problem in &report.problems {
                    tracing::error!("{path}:{problem}");
                }
                if report.problems.is_empty() {
                    if let Err(error) = self.revisions.note(text) {
                        tracing::warn!(%error, file = path, "it will be read again as news");
                    }
                    return true;
                }
                tracing::error!(file = path, "the policy in force stays");
            }
            Err(error) => tracing::error!(%error, file = path, "the policy in force stays"),
        }
        false
    }

    /// What the audit log is told of the configured file; `None`: it was wrong, or could not be taken.
    fn tell_of_file(&self, before: &Revision, text: &str, revision: Option<u32>) {
        let (word, outcome) = match revision {
            Some(_) => (word::POLICY_APPLIED, audit::Outcome::Done),
            None => (word::POLICY_REFUSED, audit::Outcome::Refused),
        };
        let event = Event::new(now_ms(), word, Actor::System, outcome)
            .on(self.config.policy_file.display().to_string())
            .with("revision_before", before.number)
            .with("sha256_before", Hash::of(before.text.as_bytes()).to_string())
            .with("sha256", Hash::of(text.as_bytes()).to_string());
        self.teller.tell(match revision {
            Some(revision) => event.with("revision", revision),
            None => event,
        });
    }

    fn candidate(&self, text: &str) -> Result<Candidate, Vec<Problem>> {
        let identities = self.peers.known();
        let checked = parse(text, Some(&Known { identities: &identities }))?;
        let world = self.peers.world();
        let compiled = compile(&checked.policy, &world, &self.config.limits)
            .map_err(|error| vec![Problem { line: 1, column: 1, text: error.to_string() }])?;
        Ok(Candidate { checked, compiled, world })
    }

    /// What a candidate would cut if it came into force now.
    fn preview(
        &mut self,
        candidate: &Candidate,
        caller: Option<Connection>,
    ) -> Result<wire::PolicyReport, DataplaneError> {
        let Candidate { checked: Checked { policy, warnings }, compiled, world: _ } = candidate;
        let head = Head::new(0, compiled.flags);
        let tables = HostTables::from(compiled.clone());
        let line = self.time_line()?;
        let Self { dataplane, ledger, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        let mut cut: Vec<(Record, Judgement)> = Vec::new();
        let mut cut_flows = 0;
        dataplane.for_each_flow(|key, value| {
            // Nor what a cut left behind, which no packet has followed.
            if value.marks & RETIRED != 0
                || is_icmp_error(key.protocol, value.icmp_type)
                || total(value) == Counters::default()
            {
                return;
            }
            let wanted = Wanted::of(value.initiator);
            let would_be = judge(&tables, head, key, value.icmp_type, wanted).of(value.initiator);
            if would_be.is_denied() && would_be.outcome() != value.judgement.outcome() {
                cut_flows += 1;
                if cut.len() < LISTED {
                    let open = ledger.open(key, value, view.peers);
                    cut.push((view.record(key, value, &open, None), would_be));
                }
            }
        })?;
        let cuts_caller = caller.filter(|_| policy.mode == Mode::Enforce).and_then(|caller| {
            let route = wireguard::route(caller.client.ip()).unwrap_or_default()?;
            let (ifindex, _) = interfaces.iter().find(|(_, watched)| *watched.name == *route)?;
            caller_cut(caller, ifindex, policy, &tables, head)
        });
        Ok(wire::PolicyReport {
            problems: Vec::new(),
            warnings: warnings.clone(),
            revision: None,
            mode: policy.mode,
            size: size(policy, compiled),
            cut: cut.iter().map(|(record, now)| self.cut_flow(record, *now, policy)).collect(),
            cut_flows,
            cuts_caller,
        })
    }

    fn cut_flow(&self, record: &Record, now: Judgement, policy: &Policy) -> wire::CutFlow {
        let gateway = &self.config.gateway;
        let shown = wire::Record::new(gateway, record);
        wire::CutFlow {
            flow_id: FlowId::new(gateway, &record.interface, &record.tuple, record.first_seen_ms),
            interface: shown.interface,
            protocol: shown.protocol,
            src: shown.src,
            dst: shown.dst,
            peer: shown.peer.map(|peer| peer.name),
            rule: rule_of(policy, now),
            enforced: now.outcome() == Outcome::Dropped,
        }
    }
}

fn refusal(problems: Vec<Problem>) -> wire::PolicyReport {
    wire::PolicyReport { problems, ..wire::PolicyReport::default() }
}

/// The id of the rule that a judgement under `policy` names.
fn rule_of(policy: &Policy, judgement: Judgement) -> Option<String> {
    let position = (judgement.rule() as usize).checked_sub(1)?;
    policy.rules.get(position).map(|rule| rule.id.to_string())
}

/// How large a compiled policy is.
pub(super) fn size(policy: &Policy, compiled: &Compiled) -> wire::PolicySize {
    wire::PolicySize {
        rules: policy.rules.len() as u64,
        prefixes: compiled.endpoints.len() as u64,
        pairs: compiled.pairs.len() as u64,
        intervals: compiled.intervals.len() as u64,
    }
}

/// The rule by which a connection through the tunnel `ifindex` would be dropped, if it would.
fn caller_cut(
    caller: Connection,
    ifindex: u32,
    policy: &Policy,
    tables: &HostTables,
    head: Head,
) -> Option<wire::CallerCut> {
    let Connection { client, server } = caller;
    let key = FlowKey {
        peer: Addr::from(client.ip().to_canonical()),
        remote: Addr::from(server.ip().to_canonical()),
        peer_port: client.port(),
        remote_port: server.port(),
        ifindex,
        protocol: TCP,
        ..FlowKey::default()
    };
    let judged = judge(tables, head, &key, 0, Wanted::OF_PEER).of(Initiator::Peer as u8);
    (judged.outcome() == Outcome::Dropped).then(|| wire::CallerCut {
        connection: format!("{client} to {server}"),
        rule: rule_of(policy, judged),
    })
}

/// How often each rule decided, as far as it is recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    by_rule: std::collections::HashMap<(u32, Option<Arc<str>>), Tally>,
}

impl Hits {
    /// Adds a record.
    pub(super) fn count(&mut self, record: &Record) {
        if record.overflow {
            return;
        }
        let key = (record.policy_revision, record.rule.clone());
        let tally = self.by_rule.entry(key).or_default();
        tally.flows += u64::from(record.opens_range(i64::MIN));
        tally.packets += record.counters.packets();
        tally.bytes += record.counters.bytes();
    }

    /// Forgets what older policies decided.
    pub(super) fn clear(&mut self) {
        self.by_rule.clear();
    }

    fn of(&self, revision: u32, rule: Option<&str>) -> Tally {
        let key = (revision, rule.map(Arc::from));
        self.by_rule.get(&key).copied().unwrap_or_default()
    }
}
