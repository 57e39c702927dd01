//! `POST /v1/policy/replay`.

use http_body_util::Full;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{Served, documented};

const NO_WEB: &str = "\
[[rules]]
id = \"no-web\"
action = \"deny\"
from = [\"user:alice@example.com\"]
to = [\"10.0.0.0/8\"]
protocols = [\"tcp\"]
ports = [443]
";

impl Served {
    async fn ask(&self, method: &str, query: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/policy/replay{query}"))
            .header("host", "flowd")
            .body(Full::new(body.into()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let target = format!("/v1/policy/replay{query}");
        let (status, bytes) = documented(method, &target, response).await;
        (status, serde_json::from_slice(&bytes).unwrap())
    }
}

#[tokio::test]
async fn a_replay_counts_the_stored_records_of_its_range() {
    let served = Served::start();
    let tally = |flows: u64| json!({ "flows": flows, "packets": 3 * flows, "bytes": 180 * flows });
    let (status, answer) = served.ask("POST", "?until=2026-11-21T05:00:00Z", NO_WEB).await;
    assert_eq!(status, 200, "{answer}");
    let expected = json!({
        "problems": [],
        "since": "2026-11-14T05:00:00.000Z",
        "until": "2026-11-21T05:00:00.000Z",
        "flows": 6,
        "changes": [{
            "peer": "=alice",
            "was": "allow",
            "was_rule": null,
            "would_be": "deny",
            "rule": "no-web",
            "flows": 6,
            "packets": 18,
            "bytes": 1080,
        }],
        "denied": tally(6),
        "allowed": tally(0),
        "unjudged": tally(0),
    });
    assert_eq!(answer, expected);
    for (query, policy, flows) in [
        ("?since=2026-11-21&port=3", NO_WEB, 1),
        ("?since=2026-11-21&verdict=deny", NO_WEB, 0),
        ("?since=2026-11-21", "default = \"deny\"", 6),
        ("?since=2026-11-21", "mode = \"enforce\"", 0),
        ("?since=2026-11-22", NO_WEB, 0),
    ] {
        let (_, answer) = served.ask("POST", query, policy).await;
        assert_eq!(answer["denied"], tally(flows), "{query} {policy}");
        assert_eq!(answer["changes"].as_array().unwrap().len(), usize::from(flows != 0));
    }
}

#[tokio::test]
async fn a_wrong_policy_is_answered_with_its_problems() {
    let served = Served::start();
    let text = NO_WEB.replace("user:alice@", "user:alise@");
    let (status, answer) = served.ask("POST", "", text).await;
    assert_eq!(status, 200, "{answer}");
    let problem = json!({
        "line": 4,
        "column": 9,
        "text": "unknown user `alise@example.com`; did you mean `alice@example.com`?",
    });
    assert_eq!(answer["problems"], json!([problem]));
    assert_eq!((&answer["flows"], &answer["changes"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn what_is_no_policy_is_refused() {
    let served = Served::start();
    let cases: [(&str, &str, &[u8], u16, &str); 5] = [
        ("GET", "", b"", 405, "/v1/policy/replay takes POST, not GET"),
        ("POST", "", b"", 400, "the request has no policy: send one in the body"),
        ("POST", "", b"\xff", 400, "the policy is no UTF-8 text"),
        ("POST", "?sicne=1h", b"", 400, "unknown parameter `sicne`; did you mean `since`?"),
        ("POST", "?limit=1", b"", 400, "unknown parameter `limit`"),
    ];
    for (method, query, body, expected, detail) in cases {
        let (status, answer) = served.ask(method, query, body.to_vec()).await;
        assert_eq!(status, expected, "{answer}");
        let told = answer["detail"].as_str().unwrap();
        assert!(told.starts_with(detail), "{told}");
    }
}
