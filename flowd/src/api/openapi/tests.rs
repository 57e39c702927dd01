//! The document against the router, the parsers of parameters, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    string::string_regex,
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::document;
use crate::api::{routes, tests::Served};

const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"];
/// An unknown parameter that is like no other.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

/// Holds an answer against the document: status, media type, and every member of the body.
pub(in crate::api) fn check(method: &str, target: &str, (status, kind, body): (u16, &str, &[u8])) {
    let document = document();
    let path = target.split('?').next().unwrap();
    let kind = kind.split(';').next().unwrap();
    let what = format!("{method} {target}: {status} {kind}");
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    let Some(operations) = find(&document, path) else {
        assert_eq!(status, 404, "{what}: there is no such path in the document");
        return validate(&document, &problem, body, &what);
    };
    let Some(operation) = operations.get(method.to_ascii_lowercase()) else {
        assert_eq!(status, 405, "{what}: the document has no such method");
        return validate(&document, &problem, body, &what);
    };
    let response = resolved(&document, &operation["responses"][status.to_string()]);
    let schema = &response["content"][kind]["schema"];
    assert!(schema.is_object(), "{what}: it is not in the document");
    match kind {
        "application/json" | "application/problem+json" => {
            validate(&document, schema, body, &what);
        }
        "application/x-ndjson" => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.for_each(|line| validate(&document, schema, line, &what));
        }
        _ => assert_eq!(schema["type"], "string", "{what}"),
    }
}

/// What a reference refers to, or the thing itself.
fn resolved<'d>(document: &'d Value, thing: &'d Value) -> &'d Value {
    thing["$ref"]
        .as_str()
        .map_or(thing, |reference| document.pointer(reference.strip_prefix('#').unwrap()).unwrap())
}

/// The operations of a path.
fn find<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    let paths = &document["paths"];
    let fits = |template: &&String| {
        template.split_once('{').is_some_and(|(start, _)| {
            path.strip_prefix(start).is_some_and(|end| !end.is_empty() && !end.contains('/'))
        })
    };
    paths.get(path).or_else(|| {
        let template = paths.as_object().unwrap().keys().find(fits)?;
        paths.get(template)
    })
}

fn validate(document: &Value, schema: &Value, body: &[u8], what: &str) {
    let mut schema = schema.clone();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["components"] = document["components"].clone();
    close(&mut schema);
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(&schema).unwrap();
    let answer: Value = serde_json::from_slice(body).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&answer)
        .map(|error| format!("{} at `{}`", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// Lets no member in that the document does not have. What is a part of another shape stays open:
/// the others are members of the whole.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("$ref") {
                members.insert("unevaluatedProperties".to_owned(), false.into());
            }
            for (name, member) in members {
                match member.as_array_mut().filter(|_| name == "allOf") {
                    Some(parts) => {
                        parts.iter_mut().filter(|part| part.get("$ref").is_none()).for_each(close);
                    }
                    None => close(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
#[should_panic(expected = "Unevaluated properties")]
fn a_member_that_the_document_does_not_have_is_found() {
    let problem = json!({ "type": "", "title": "", "status": 404, "detail": "", "more": 1 });
    let body = serde_json::to_vec(&problem).unwrap();
    check("GET", "/v1/flows/x", (404, "application/problem+json", &body));
}

#[test]
#[should_panic(expected = "required property")]
fn a_member_that_may_be_null_may_not_be_away() {
    check("GET", "/v1/flows", (200, "application/json", br#"{ "flows": [] }"#));
}

impl Served {
    /// The answer to a request, which has a policy, or a statement, in its body.
    async fn method(&self, method: &str, target: &str) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(target).header("host", "flowd");
        let is_sql = target.starts_with("/v1/sql");
        let body = if is_sql { "SELECT 1" } else { "default = \"allow\"" };
        sender.send_request(request.body(Full::<Bytes>::from(body)).unwrap()).await.unwrap()
    }

    /// Status, and what is said in a refusal.
    async fn refusal(&self, method: &str, target: &str) -> (u16, String) {
        let response = self.method(method, target).await;
        let status = response.status().as_u16();
        if status == 200 {
            // A stream may have no end.
            return (status, String::new());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        (status, problem["detail"].as_str().unwrap().to_owned())
    }
}

/// Every operation: method, path with something in it, and the operation itself.
fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut all = Vec::new();
    for (template, operations) in document["paths"].as_object().unwrap() {
        let path = filled(template);
        for (method, operation) in operations.as_object().unwrap() {
            let mut operation = operation.clone();
            for parameter in operation["parameters"].as_array_mut().unwrap() {
                *parameter = resolved(&document, parameter).clone();
            }
            all.push((method.to_ascii_uppercase(), path.clone(), operation));
        }
    }
    all
}

fn filled(template: &str) -> String {
    template.replace("{flow_id}", "01a1fc8a-a425-75a7-b299-ae8d734de1c4").replace("{peer}", "carol")
}

#[tokio::test]
async fn the_router_and_the_document_have_the_same_paths_and_methods() {
    let document = document();
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let routed: BTreeSet<&str> = routes().paths.into_iter().collect();
    assert_eq!(documented, routed);
    let served = Served::start();
    for path in documented {
        let operations = document["paths"][path].as_object().unwrap();
        let mut allowed: Vec<String> =
            operations.keys().map(|method| method.to_ascii_uppercase()).collect();
        if allowed.contains(&"GET".to_owned()) {
            allowed.push("HEAD".to_owned());
        }
        allowed.sort();
        for method in METHODS {
            let response = served.method(method, &filled(path)).await;
            let is_allowed = allowed.contains(&method.to_owned());
            assert_eq!(response.status() != 405, is_allowed, "{method} {path}");
            if !is_allowed {
                let allow = response.headers()["allow"].to_str().unwrap();
                let mut told: Vec<_> = allow.split(',').map(str::trim).collect();
                told.sort_unstable();
                assert_eq!(told, allowed, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_parameter_that_is_known_is_documented_and_the_other_way_round() {
    let served = Served::start();
    for (method, path, operation) in operations() {
        let in_query = |parameter: &&Value| parameter["in"] == "query";
        let parameters = operation["parameters"].as_array().unwrap();
        let documented: BTreeSet<&str> = parameters
            .iter()
            .filter(in_query)
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let (status, detail) = served.refusal(&method, &format!("{path}?{UNKNOWN}=1")).await;
        assert_eq!(status, 400, "{method} {path}: {detail}");
        let known: BTreeSet<&str> = match detail.split_once("known here are ") {
            Some((_, known)) => known.split(", ").collect(),
            None => {
                assert!(detail.ends_with("this endpoint takes none"), "{detail}");
                BTreeSet::new()
            }
        };
        // Records as they are written have no state: known so as to be refused with a reason.
        let refused = if path == "/v1/watch" { BTreeSet::from(["state"]) } else { BTreeSet::new() };
        assert!(refused.is_disjoint(&documented));
        assert_eq!(known, &documented | &refused, "{method} {path}");
        for name in refused {
            let (status, detail) = served.refusal(&method, &format!("{path}?{name}=open")).await;
            assert_eq!(status, 400, "{method} {path}: {detail}");
        }
    }
}

/// Texts that a schema says are right, and texts that it says are wrong.
fn texts(schema: &Value, runner: &mut TestRunner) -> (Vec<String>, Vec<String>) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |member: &str| schema[member].as_array().into_iter().flatten().map(text);
    let mut right: Vec<String> = list("enum").chain(list("examples")).collect();
    let mut wrong = vec![String::new()];
    match schema["type"].as_str().unwrap() {
        "integer" => {
            let (least, most) = (&schema["minimum"], &schema["maximum"]);
            let most = most.as_i64().unwrap();
            right.extend([text(least), most.to_string()]);
            wrong.extend([(most + 1).to_string(), "-1".into(), "+1".into(), "1.0".into()]);
            wrong.push((least.as_i64().unwrap() - 1).to_string());
        }
        "array" => {
            let most = schema["maxItems"].as_u64().unwrap() as usize;
            let words: Vec<String> = match schema["items"]["enum"].as_array() {
                Some(words) => words.iter().map(text).collect(),
                None => (0..=most).map(|_| matching(&schema["items"], runner)).collect(),
            };
            right.extend([words[0].clone(), words[..most].join(",")]);
            wrong.push(words[..=most].join(","));
            let twice = format!("{0},{0}", words[0]);
            let is_unique = schema["uniqueItems"] == true;
            if is_unique { &mut wrong } else { &mut right }.push(twice);
        }
        "string" if schema["pattern"].is_string() => {
            right.extend((0..15).map(|_| matching(schema, runner)));
            wrong.extend(["é".to_owned(), "+1".to_owned(), "1..2".to_owned(), "x".repeat(99)]);
        }
        "string" if schema["enum"].is_array() => {
            wrong.extend([format!("{}x", right[0]), format!("+{}", right[0])]);
        }
        "string" => right.push("=any thing/é".to_owned()),
        other => panic!("{other}"),
    }
    right.extend(schema.get("default").filter(|default| !default.is_array()).map(text));
    (right, wrong)
}

/// A text that matches a schema's pattern.
fn matching(schema: &Value, runner: &mut TestRunner) -> String {
    let pattern = schema["pattern"].as_str().unwrap();
    let pattern = pattern.strip_prefix('^').unwrap().strip_suffix('$').unwrap();
    string_regex(pattern).unwrap().new_tree(runner).unwrap().current()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn what_the_document_says_of_a_parameter_is_what_is_accepted() {
    let served = Served::start();
    let mut runner = TestRunner::deterministic();
    let mut tried = BTreeMap::new();
    for (method, path, operation) in operations() {
        let parameters = operation["parameters"].as_array().unwrap();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let others: String = parameters
                .iter()
                .filter(|other| other["required"] == true && other["in"] == "query")
                .filter(|other| other["name"] != name)
                .map(|other| {
                    let (right, _) = texts(&other["schema"], &mut runner);
                    format!("{}={}&", other["name"].as_str().unwrap(), encoded(&right[0]))
                })
                .collect();
            let (right, wrong) = texts(&parameter["schema"], &mut runner);
            assert!(!right.is_empty());
            for (texts, is_right) in [(right, true), (wrong, false)] {
                for text in texts {
                    let target = format!("{path}?{others}{name}={}", encoded(&text));
                    let (status, detail) = served.refusal(&method, &target).await;
                    let what = format!("{method} {path} {name}={text}: {status} {detail}");
                    assert_eq!(status != 400, is_right, "{what}");
                    *tried.entry(name.to_owned()).or_insert(0) += 1;
                }
            }
        }
    }
    assert!(tried.len() > 20 && tried["since"] > 100, "{tried:?}");
}

#[test]
fn everything_is_said_once_and_leads_somewhere() {
    let mut ids = BTreeMap::new();
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names: Vec<_> = parameters.map(|p| p["name"].clone()).collect();
        assert!(names.iter().all(|name| names.iter().filter(|n| *n == name).count() == 1));
        assert_eq!(ids.insert(id, names), None, "{method} {path}");
    }
    for (method, path, operation) in operations() {
        let links = operation["responses"]["200"]["links"].as_object();
        for link in links.into_iter().flat_map(serde_json::Map::values) {
            let names = &ids[link["operationId"].as_str().unwrap()];
            let given = link["parameters"].as_object().unwrap();
            assert!(given.keys().all(|name| names.contains(&json!(name))), "{method} {path}");
        }
    }
    // A reference of rustdoc leads nowhere here.
    let text = document().to_string();
    assert!(!text.contains("[`") && !text.contains("`None`"), "{text}");
}
