//! What the parameters of the API may be.

use serde_json::{Value, json};

use super::patterns;
use crate::{
    api::params::MOST_HASHES,
    audit::Outcome,
    flows::{
        By, FlowSort, Grouping, Initiator, Order, RateSort, Sort, Stage, Step, Verdict,
        protocol_names,
    },
    when,
};

/// One parameter of an operation.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    place: Place,
    description: String,
    schema: Value,
    /// Further members, such as a style.
    more: Value,
    is_shared: bool,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Path,
    Query,
    RequiredQuery,
}

impl Parameter {
    fn new(name: &'static str, description: impl Into<String>, schema: Value) -> Self {
        let description = description.into();
        let more = json!({});
        Self { name, place: Place::Query, description, schema, more, is_shared: false }
    }

    fn in_path(self) -> Self {
        Self { place: Place::Path, ..self }
    }

    /// The request needs it.
    pub(super) fn required(self) -> Self {
        Self { place: Place::RequiredQuery, ..self }
    }

    /// The same wherever it is taken.
    fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// As an operation has it.
    pub(super) fn json(&self) -> Value {
        match self.is_shared {
            true => json!({ "$ref": format!("#/components/parameters/{}", self.name) }),
            false => self.whole(),
        }
    }

    /// All that is said of it.
    pub(super) fn whole(&self) -> Value {
        let Self { name, place, description, schema, more, is_shared: _ } = self;
        let mut json = json!({
            "name": name,
            "in": if *place == Place::Path { "path" } else { "query" },
            "required": *place != Place::Query,
            "description": description,
            "schema": schema,
        });
        if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
            json.extend(more.clone());
        }
        json
    }
}

/// Those that several operations take, and which are the same for all of them.
pub(super) fn shared() -> Vec<Parameter> {
    let mut all = filters();
    all.push(state());
    all
}

/// Where a range begins and ends.
pub(super) fn range() -> Vec<Parameter> {
    let instant = |name, what: &str, examples: [&str; 2]| {
        let description = format!("{what} {}. What says no zone is meant in UTC.", when::ACCEPTED);
        let schema = json!({
            "type": "string",
            "pattern": patterns::instant(),
            "examples": examples,
        });
        Parameter::new(name, description, schema)
    };
    let (since, until) = (["24h", "2026-11-21T08:00:00Z"], ["now", "2026-11-21T09:00:00Z"]);
    let since = instant("since", "The first instant of the range:", since);
    let until = instant("until", "The first instant behind the range, later than `since`:", until);
    vec![since.shared(), until.shared()]
}

/// The filters, the same for every operation that takes them.
pub(super) fn filters() -> Vec<Parameter> {
    let network = |name, what: &str| {
        let description = format!("{what}: an address, or a prefix such as 10.8.0.0/24.");
        Parameter::new(
            name,
            description,
            json!({ "type": "string", "pattern": patterns::network() }),
        )
    };
    let initiator = [Initiator::Peer, Initiator::Remote, Initiator::Unknown].map(Initiator::word);
    let mut all = range();
    let others = [
        peer("The peer at either end"),
        text("user", "The user of the peer at either end, as in peers.toml."),
        network("src", "The address of the initiator, or of the peer where nobody knows who began"),
        network("dst", "The other address"),
        network("ip", "Either address"),
        port("port", "The port at either end, of protocols with ports."),
        port("src_port", "The port at `src`."),
        port("dst_port", "The port at `dst`."),
        protocol(),
        Parameter::new(
            "verdict",
            "What the policy says.",
            words(&[Verdict::Allow, Verdict::Deny].map(Verdict::word), None),
        ),
        text("rule", "The id of the rule that decided; `none`: no rule did."),
        Parameter::new("initiator", "Which side opened the flow.", words(&initiator, None)),
        interface(),
        Parameter::new(
            "min_bytes",
            "What the flow had moved by the end of the record, both ways, since its first packet, \
             such as 1500, 10kB or 1.5GiB.",
            json!({ "type": "string", "pattern": patterns::SIZE, "examples": ["1500", "10MB"] }),
        ),
    ];
    all.extend(others.map(Parameter::shared));
    all
}

/// Of flows, and of what is summed from them.
pub(super) fn state() -> Parameter {
    let states = words(&["open", "closed"], None);
    Parameter::new("state", "Whether the flow still lives.", states).shared()
}

/// What names a peer.
pub(super) fn peer(what: &str) -> Parameter {
    text(
        "peer",
        &format!("{what}: a name, a public key, or the first four or more characters of it."),
    )
}

pub(super) fn interface() -> Parameter {
    text("interface", "The name of an interface.")
}

pub(super) fn protocol() -> Parameter {
    let names: Vec<_> = protocol_names().collect();
    let description = format!("A number, or {} in any case of letters.", names.join(", "));
    let schema = json!({ "type": "string", "pattern": patterns::byte_or(&names) });
    Parameter::new("protocol", description, schema)
}

pub(super) fn port(name: &'static str, description: &str) -> Parameter {
    let schema = json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX });
    Parameter::new(name, description, schema)
}

/// How many items an answer has at most.
pub(super) fn limit(description: &str, default: usize, maximum: usize) -> Parameter {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": maximum, "default": default });
    Parameter::new("limit", description, schema)
}

/// How much of an answer that has an end of its own.
pub(super) fn most(description: &str, maximum: usize) -> Parameter {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": maximum });
    Parameter::new("limit", description, schema)
}

/// Where a page begins.
pub(super) fn cursor(description: &str, example: &str) -> Parameter {
    let mut cursor = text("cursor", description);
    cursor.schema["examples"] = json!([example]);
    cursor
}

/// What a list of flows is sorted by.
pub(super) fn flow_sort() -> Parameter {
    let schema = words(&FlowSort::ALL.map(FlowSort::word), Some(FlowSort::Start.word()));
    Parameter::new("sort", "What the flows are sorted by.", schema)
}

/// What groups are sorted by.
pub(super) fn sort() -> Parameter {
    let schema = words(&Sort::ALL.map(Sort::word), Some(Sort::Bytes.word()));
    Parameter::new("sort", "What is compared.", schema)
}

/// What open flows and their peers are sorted by.
pub(super) fn rate_sort() -> Parameter {
    let schema = words(&RateSort::ALL.map(RateSort::word), Some(RateSort::Rate.word()));
    Parameter::new("sort", "What the flows and their peers are sorted by.", schema)
}

pub(super) fn order() -> Parameter {
    let orders = [Order::Descending, Order::Ascending].map(Order::word);
    let schema = words(&orders, Some(Order::default().word()));
    Parameter::new("order", "Most or newest first, or least or oldest.", schema)
}

/// What rows or lines have in common.
pub(super) fn by(default: Option<By>) -> Parameter {
    let mut schema = json!({
        "type": "array",
        "items": words(&By::ALL.map(By::word), None),
        "minItems": 1,
        "maxItems": Grouping::MOST,
        "uniqueItems": true,
    });
    if let Some(default) = default {
        schema["default"] = json!([default.word()]);
    }
    let description = "One property of a flow, or several with commas between them.";
    let parameter = Parameter::new("by", description, schema);
    Parameter { more: json!({ "style": "form", "explode": false }), ..parameter }
}

/// The length of a step.
pub(super) fn step() -> Parameter {
    let mut steps: Vec<String> = (1..=720).map(|minutes| format!("{minutes}m")).collect();
    steps.extend((1..=24).map(|hours| format!("{hours}h")));
    steps.push("1d".to_owned());
    steps.retain(|step| step.parse::<Step>().is_ok());
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    Parameter::new(
        "step",
        "The length of a step; it suits the range where none is named.",
        words(&steps, None),
    )
}

/// Where on the way of a packet.
pub(super) fn stage() -> Parameter {
    let schema = words(&Stage::ALL.map(Stage::word), None);
    Parameter::new("stage", "Where on the way of a packet: see docs/gaps.md.", schema)
}

/// One end that a policy judges.
pub(super) fn end(name: &'static str, what: &str, example: &str) -> Parameter {
    let mut end = text(name, &format!("{what}: an address, or a peer's name or public key."));
    end.schema["examples"] = json!([example]);
    end.required()
}

/// The connection that the caller came by.
pub(super) fn via() -> Parameter {
    Parameter::new(
        "via",
        "The connection that the caller came by, such as 10.8.0.2:50000-10.8.0.1:22; the answer \
         says whether the policy would cut it, and one that would is not put into force.",
        json!({ "type": "string", "pattern": patterns::connection() }),
    )
}

/// A flow.
pub(super) fn flow_id() -> Parameter {
    let schema = json!({ "type": "string", "format": "uuid" });
    Parameter::new("flow_id", "As `flow_id` in a flow or a record.", schema).in_path()
}

/// A peer by what stands in the path.
pub(super) fn peer_in_path() -> Parameter {
    peer("The peer, percent-encoded").in_path()
}

/// Whose deed it is.
pub(super) fn actor() -> Parameter {
    text("actor", "Name or number of a user, or `system`.")
}

/// What happened.
pub(super) fn event() -> Parameter {
    let mut event = text("event", "As in docs/audit.md; what ends in `*` is the start of it.");
    event.schema["examples"] = json!(["query", "policy.*"]);
    event
}

/// To what.
pub(super) fn resource() -> Parameter {
    text("resource", "What was asked for or changed, such as /v1/flows; the whole of it.")
}

/// How it ended.
pub(super) fn outcome() -> Parameter {
    Parameter::new("outcome", "How it ended.", words(&Outcome::ALL.map(Outcome::word), None))
}

/// A part of what an entry says.
pub(super) fn part() -> Parameter {
    text("text", "Stands in the actor, the program, the resource or the details.")
}

/// Behind which entry.
pub(super) fn after() -> Parameter {
    let schema = json!({ "type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_i64 });
    Parameter::new("after", "Only entries behind this one, in the order of their numbers.", schema)
}

/// The newest entry at an earlier time.
pub(super) fn head() -> Parameter {
    Parameter::new(
        "head",
        "`head_seq:head_hash` of an earlier answer, kept elsewhere: shows that nothing up to there \
         was taken away or made anew.",
        json!({ "type": "string", "pattern": "^[0-9]{1,15}:[0-9a-f]{64}$" }),
    )
}

/// Public keys of the gateway.
pub(super) fn keys() -> Parameter {
    hashes(
        "key",
        "A public key of the gateway that was kept elsewhere, or several: the newest, and older ones \
         that no other named.",
    )
}

/// Hashes of statements.
pub(super) fn known() -> Parameter {
    hashes("known", "`head` of earlier answers, kept elsewhere: what they spoke of is still there.")
}

fn hashes(name: &'static str, description: &str) -> Parameter {
    let schema = json!({
        "type": "array",
        "items": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
        "minItems": 1,
        "maxItems": MOST_HASHES,
    });
    let parameter = Parameter::new(name, description, schema);
    Parameter { more: json!({ "style": "form", "explode": false }), ..parameter }
}

fn text(name: &'static str, description: &str) -> Parameter {
    Parameter::new(name, description, json!({ "type": "string", "minLength": 1 }))
}

fn words(words: &[&str], default: Option<&str>) -> Value {
    let mut schema = json!({ "type": "string", "enum": words });
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}
