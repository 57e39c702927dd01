//! What requests leave in the audit log, and who may ask at all.

use std::{io::Write as _, os::unix::net::UnixStream, sync::mpsc, time::Duration};

use super::{Served, limits::SOON};
use crate::{
    api::Access,
    audit::{Actor, Event, Outcome, word},
    flows::Verdict,
    live::Request,
    policy::Mode,
    wire,
};

impl Served {
    fn event(&self) -> Event {
        self.events.recv_timeout(SOON).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_tells_who_asked_what_and_how_it_ended() {
    let served = Served::start();
    let cases = [
        // target, status, event, outcome, detail
        (
            "/v1/flows?peer=%3Dalice&limit=1",
            200,
            word::QUERY,
            Outcome::Done,
            "{\"limit\":\"1\",\"peer\":\"=alice\"}",
        ),
        ("/v1/status", 200, word::QUERY, Outcome::Failed, ""),
        ("/v1/flows?limit=0", 400, word::REQUEST_MALFORMED, Outcome::Refused, "{\"limit\":\"0\"}"),
        ("/v1/flows?limit=1&limit=2", 400, word::REQUEST_MALFORMED, Outcome::Refused, ""),
        ("/nothing", 404, word::QUERY, Outcome::Refused, ""),
        (
            "/v1/audit?event=policy.*",
            200,
            word::AUDIT_READ,
            Outcome::Done,
            "{\"event\":\"policy.*\"}",
        ),
        ("/v1/audit/verify", 200, word::AUDIT_VERIFIED, Outcome::Done, ""),
        ("/v1/verify", 400, word::REQUEST_MALFORMED, Outcome::Refused, ""),
    ];
    for (target, status, word, outcome, query) in cases {
        let (got, _) = served.text(target, "application/json").await;
        // This drain thread does not say how it is.
        let status = if target == "/v1/status" { 503 } else { status };
        assert_eq!(got, status, "{target}");
        let event = served.event();
        assert_eq!((event.word, event.outcome), (word, outcome), "{target}");
        assert_eq!(event.resource.as_deref(), target.split('?').next(), "{target}");
        assert_eq!(event.details["status"], status, "{target}");
        let asked = event.details.get("query").map(ToString::to_string).unwrap_or_default();
        assert_eq!(asked, query, "{target}");
        let Actor::Caller(caller) = event.actor else { panic!("{target}") };
        assert_eq!(caller.pid, std::process::id());
        // SAFETY: this call has no conditions.
        assert_eq!(caller.uid, unsafe { libc::geteuid() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_tells_what_was_sent() {
    let served = Served::start();
    for (accept, lines) in [("application/x-ndjson", 6), ("text/csv", 6)] {
        let (_, text) = served.text("/v1/records", accept).await;
        let (begun, ended) = (served.event(), served.event());
        assert_eq!((begun.word, begun.outcome), (word::EXPORT_STARTED, Outcome::Begun));
        assert_eq!((ended.word, ended.outcome), (word::EXPORT_FINISHED, Outcome::Done));
        assert_eq!(ended.details["lines"], lines, "{text}");
        assert_eq!(ended.details["bytes"], text.len());
        let hash = crate::audit::Hash::of(text.as_bytes()).to_string();
        assert_eq!(ended.details["sha256"], hash);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_at_both_ends() {
    let served = Served::start();
    let response = served.send("/v1/watch", "*/*").await;
    assert_eq!(served.event().word, word::WATCH_STARTED);
    drop(response);
    assert_eq!(served.event().word, word::WATCH_FINISHED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_and_named() {
    let nobody = Access::nobody();
    let served = Served::with(Duration::from_secs(30), nobody);
    for target in ["/v1/flows?peer=alice", "/metrics", "/v1/audit"] {
        let (status, text) = served.text(target, "application/json").await;
        assert_eq!(status, 403, "{target}: {text}");
        let event = served.event();
        assert_eq!((event.word, event.outcome), (word::ACCESS_REFUSED, Outcome::Refused));
        assert_eq!(event.resource.as_deref(), target.split('?').next());
        assert!(event.details["groups"].is_array());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_the_history_is_told_with_what_it_found() {
    let served = Served::start();
    let key = crate::seal::PrivateKey::from_seed(&[1; 32]).public();
    let (status, text) =
        served.text(&format!("/v1/verify?key={key},{key}"), "application/json").await;
    assert_eq!(status, 200, "{text}");
    let proof: crate::seal::Proof = serde_json::from_str(&text).unwrap();
    assert!(!proof.is_good && !proof.days.is_empty(), "no key has ever signed: {proof:?}");
    let event = served.event();
    assert_eq!((event.word, event.outcome), (word::HISTORY_VERIFIED, Outcome::Done));
    assert_eq!(event.details["faults"], proof.faults.len());
    assert_eq!(event.details["unproven_days"], proof.days.len());
    // Not every number of 32 bytes is a key.
    let (two, many) = (format!("02{}", "00".repeat(31)), vec![key.to_string(); 17].join(","));
    for (wrong, expected) in [(two.as_str(), 422), ("02", 400), ("", 400), (&many, 400)] {
        let (status, text) =
            served.text(&format!("/v1/verify?key={wrong}"), "application/json").await;
        assert_eq!(status, expected, "{wrong}: {text}");
        assert!(text.contains("`key` "), "{text}");
    }
}

/// The drain thread answers only when the client has gone.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_is_told_all_the_same() {
    let (questions, asked) = mpsc::channel();
    let served =
        Served::asking(Duration::from_secs(30), Access::of(&[], &[], &[]), move |inbox, _| {
            while let Ok(question) = inbox.recv() {
                questions.send(question).expect("the test waits");
            }
        });
    let ask = |head: &str, body: &str| {
        let mut client = UnixStream::connect(&served.socket).unwrap();
        let length = body.len();
        let request =
            format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        client.write_all(request.as_bytes()).unwrap();
        (client, asked.recv_timeout(SOON).unwrap())
    };
    // A policy goes into force without whoever sent it.
    let policy = "default = \"allow\"";
    let (client, question) = ask("PUT /v1/policy", policy);
    let Request::Policy { reply } = question else { panic!("{question:?}") };
    drop(client);
    let gone = [
        ("GET /v1/flows?peer=alice", "", word::QUERY),
        ("GET /v1/records", "", word::EXPORT_ABORTED),
        ("POST /v1/policy/check", policy, word::POLICY_CHECKED),
    ];
    for (head, body, word) in gone {
        let (client, _question) = ask(head, body);
        drop(client);
        let event = served.event();
        assert_eq!((event.word, event.outcome), (word, Outcome::Failed), "{head}");
        assert_eq!(event.details["client"], "gone");
    }
    let before = wire::Policy {
        revision: 0,
        mode: Mode::default(),
        default: Verdict::Allow,
        applied: None,
        since: wire::Timestamp(0),
        rules: Vec::new(),
        size: wire::PolicySize::default(),
        text: String::new(),
    };
    reply.send(before).expect("it is waited for");
    let question = asked.recv_timeout(SOON).unwrap();
    let Request::ApplyPolicy { reply, .. } = question else { panic!("{question:?}") };
    assert_eq!(served.event().word, word::POLICY_REQUESTED);
    drop(reply.send(Ok(wire::PolicyReport::default())));
    let event = served.event();
    assert_eq!((event.word, event.outcome), (word::POLICY_APPLIED, Outcome::Done));
}
