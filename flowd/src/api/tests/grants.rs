//! Somebody who is granted little, and tries to learn more.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::Served;
use crate::{
    api::{Access, openapi},
    config::Grant,
};

/// What tells of alice, whose flows these are, or of any address.
const SECRETS: [&str; 6] = ["alice", "10.8.0", "10.0.0.1", "192.0.2", "xTIB", "billing"];

fn granted(users: &[&str], addresses: bool) -> Served {
    let grant = Grant {
        group: String::new(),
        peers: Vec::new(),
        users: users.iter().map(|name| (*name).to_owned()).collect(),
        addresses,
    };
    Served::with(Duration::from_secs(30), Access::granting(grant))
}

/// Everything that anybody may ask for: filters, sorting, cursors, groups, and what is wrong.
fn questions() -> Vec<String> {
    let mut questions: Vec<String> =
        openapi::paths().iter().map(|path| path.replace("{flow_id}", "x")).collect();
    let queries = [
        "",
        "?limit=1",
        "?limit=x",
        "?sort=bytes",
        "?by=peer",
        "?by=dst&limit=5",
        "?cursor=1795233600000~6~10.8.0.2~1~10.0.0.1~443~0~wg0",
        "?peer=%3Dalice",
        "?peer=xTIB",
        "?peer=nobody-at-all",
        "?user=alice@example.com",
        "?user=nobody@example.com",
        "?user=bob@example.com&peer=%3Dalice",
        "?user=bob@example.com&user=alice@example.com",
        "?dst=10.0.0.1",
    ];
    for path in ["summary", "flows", "records", "top", "series", "watch", "peers", "rates"] {
        questions.extend(queries.iter().map(|query| format!("/v1/{path}{query}")));
    }
    questions.extend(["/v1/peers/%3Dalice", "/v1/nothing", "/v1/totals"].map(str::to_owned));
    questions
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_bob_learns_nothing_of_alice() {
    for addresses in [false, true] {
        let served = granted(&["bob@example.com"], addresses);
        let mut answers = std::collections::BTreeSet::new();
        for question in questions() {
            // Also where the document has no such path or method.
            let response = served.send(&question, "application/json").await;
            let status = response.status();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(status, 403, "{question}: {text:?}");
            answers.insert(text);
        }
        // Where it may be asked otherwise, and where not: neither depends on what there is.
        assert!(answers.len() <= 2, "{answers:?}");
        let mut of_bob = vec!["summary?", "top?by=protocol&", "series?by=dst_port&"];
        let sorted = ["flows?", "flows?sort=bytes&", "top?by=peer&", "top?by=dst&"];
        of_bob.extend(sorted.iter().filter(|_| addresses));
        for path in of_bob {
            let target = format!("/v1/{path}user=bob@example.com");
            let (status, text) = served.text(&target, "application/json").await;
            assert_eq!(status, 200, "{target}: {text}");
            let told: Vec<_> = SECRETS.iter().filter(|secret| text.contains(*secret)).collect();
            assert!(told.is_empty(), "{target} tells {told:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_alice_tell_no_address() {
    let served = granted(&["alice@example.com"], false);
    let of_alice = "user=alice@example.com&since=2026-11-01T00:00:00Z&until=2026-12-01T00:00:00Z";
    let paths = ["summary?", "top?by=protocol,dst_port&", "series?by=verdict&step=1d&"];
    for path in paths {
        let target = format!("/v1/{path}{of_alice}");
        let (status, text) = served.text(&target, "application/json").await;
        assert_eq!(status, 200, "{target}: {text}");
        // 2 packets from each of six flows, and what is not recorded yet.
        assert!(text.contains("packets"), "{target}: {text}");
        for secret in ["10.8.0", "10.0.0.1", "192.0.2", "xTIB", "billing"] {
            assert!(!text.contains(secret), "{target} tells {secret}: {text}");
        }
    }
    let summary = served.json(&format!("/v1/summary?{of_alice}")).await;
    assert_eq!(summary["flows"], 6, "{summary}");
}
