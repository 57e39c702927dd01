//! Policies: what is in force, what a text would do, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Endpoint, FlowState, Timestamp};
use crate::{
    flows::{FlowId, Identity, Tally, Verdict},
    policy::{Mode, Problem, Replayed, Turn},
};

/// `GET /v1/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Zero: there is no policy, and everything may pass.
    pub revision: u32,
    /// Whether denied packets are dropped.
    pub mode: Mode,
    /// What is said where no rule matches.
    pub default: Verdict,
    /// When it came into force; `None` where there is no policy.
    pub applied: Option<Timestamp>,
    /// Since when `hits` are counted: the start of the daemon or of the policy.
    pub since: Timestamp,
    /// In their order, and last what no rule matched, with a null `id`.
    pub rules: Vec<RuleHits>,
    /// How large it is in the kernel.
    pub size: PolicySize,
    /// As it was written.
    pub text: String,
}

/// How often a rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleHits {
    /// `None`: no rule, the default.
    pub id: Option<String>,
    /// What it says.
    pub action: Verdict,
    /// Flows that it decided about, and their packets and bytes.
    #[serde(flatten)]
    pub hits: Tally,
}

/// The kernel's tables of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicySize {
    /// Rules.
    pub rules: u64,
    /// Prefixes of peers and rules, on both sides of every interface.
    pub prefixes: u64,
    /// Pairs of sources and destinations that rules tell apart.
    pub pairs: u64,
    /// Ranges of ports.
    pub intervals: u64,
}

/// `POST /v1/policy/check`, and the larger part of `PUT /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyReport {
    /// Why it cannot be put into force; everything else is empty then.
    pub problems: Vec<Problem>,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
    /// The revision that it got; `None` when it was only checked or refused.
    pub revision: Option<u32>,
    /// Whether denied packets are dropped.
    pub mode: Mode,
    /// How large it is in the kernel.
    pub size: PolicySize,
    /// Open flows that it denies and the policy before did not, at most a thousand of them.
    pub cut: Vec<CutFlow>,
    /// How many there are.
    pub cut_flows: u64,
    /// Whether and how it cuts the connection of whoever asks.
    pub cuts_caller: Option<CallerCut>,
}

/// The caller's own connection would be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallerCut {
    /// The connection, in words.
    pub connection: String,
    /// `None`: no rule, the default.
    pub rule: Option<String>,
}

/// An open flow that a policy denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutFlow {
    /// The flow that ends.
    pub flow_id: FlowId,
    /// Its interface.
    pub interface: String,
    /// By name or number.
    pub protocol: String,
    /// Who opened it.
    pub src: Endpoint,
    /// The other end.
    pub dst: Endpoint,
    /// The peer whose leg of the tunnel it is.
    pub peer: Option<String>,
    /// The rule that denies it; `None`: the default.
    pub rule: Option<String>,
    /// Whether its packets are dropped.
    pub enforced: bool,
}

/// `GET /v1/policy/why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The policy in force.
    pub revision: u32,
    /// Whether denied packets are dropped.
    pub mode: Mode,
    /// The source.
    pub src: WhyEnd,
    /// The destination.
    pub dst: WhyEnd,
    /// By name or number, as asked or assumed.
    pub protocol: Option<String>,
    /// As asked.
    pub port: Option<u16>,
    /// What decides, in the order of the rules: one where the service is given or does not matter,
    /// else each rule that decides about some services, the last for all that are left.
    pub decisions: Vec<Decision>,
    /// The newest flow between the two.
    pub last_flow: Option<LastFlow>,
}

/// What decides about some services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// `None`: no rule, the default.
    pub rule: Option<String>,
    /// Where the rule begins in the text of the policy.
    pub line: Option<usize>,
    /// What it says.
    pub verdict: Verdict,
    /// For which services; `None`: for all that are left.
    pub services: Option<String>,
}

/// One end of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyEnd {
    /// The address that was judged.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// The peer that has it.
    pub peer: Option<Identity>,
    /// How the peer was found, or why there is none.
    pub found: String,
    /// Whether the gateway itself has the address.
    pub is_gateway: bool,
    /// The most specific resource around the address.
    pub resource: Option<String>,
    /// The interface of the peer.
    pub interface: Option<String>,
    /// The peer's last handshake; `None`: never, or no peer.
    pub latest_handshake: Option<Timestamp>,
    /// Where the gateway sends packets for the address: an interface; `None`: nowhere.
    pub route: Option<String>,
    /// Whether that is where the peer is.
    pub route_fits: Option<bool>,
}

/// The newest flow between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastFlow {
    /// Its name.
    pub flow_id: FlowId,
    /// Whether it lives.
    pub state: FlowState,
    /// Its last packet.
    pub last_seen: Timestamp,
    /// What the policy said of it.
    pub verdict: Verdict,
    /// Whether its packets were dropped.
    pub enforced: bool,
    /// The rule that decided.
    pub rule: Option<String>,
}

/// `POST /v1/policy/replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replay {
    /// Why the policy cannot be used; everything else is empty then.
    pub problems: Vec<Problem>,
    /// Where the replay began; `None`: with the first record.
    pub since: Option<Timestamp>,
    /// Where it ended.
    pub until: Timestamp,
    /// Flows that were judged.
    pub flows: u64,
    /// The verdicts that change, the most bytes first.
    pub changes: Vec<Change>,
    /// What the policy would deny, all together.
    pub denied: Tally,
    /// What it would allow.
    pub allowed: Tally,
    /// What cannot be judged: it found the flow table full, or is an ICMP error that the policy
    /// would deny and that may belong to a flow which it allows.
    pub unjudged: Tally,
}

impl Replay {
    /// What became of the records of a range.
    pub fn new((since, until): (Option<Timestamp>, Timestamp), replayed: Replayed) -> Self {
        let Replayed { allowed, denied, unjudged, turns } = replayed;
        Self {
            problems: Vec::new(),
            since,
            until,
            flows: allowed.flows + denied.flows,
            changes: turns.into_iter().map(Change::from).collect(),
            denied,
            allowed,
            unjudged,
        }
    }
}

/// Flows of one peer that another rule would decide otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The peer, by the name it had then.
    pub peer: Option<String>,
    /// What was said.
    pub was: Verdict,
    /// By which rule; `None`: by none.
    pub was_rule: Option<String>,
    /// What would be said.
    pub would_be: Verdict,
    /// By which rule; `None`: by none.
    pub rule: Option<String>,
    /// How much of it.
    #[serde(flatten)]
    pub traffic: Tally,
}

impl From<(Turn, Tally)> for Change {
    fn from((turn, traffic): (Turn, Tally)) -> Self {
        let Turn { peer, was, was_rule, would_be, rule } = turn;
        let text = |id: std::sync::Arc<str>| id.to_string();
        Self { peer, was, was_rule: was_rule.map(text), would_be, rule: rule.map(text), traffic }
    }
}
