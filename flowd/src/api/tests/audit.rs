//! What requests leave in the audit log, and who may ask at all.

use std::time::Duration;

use super::Served;
use crate::{
    api::Access,
    audit::{Actor, Event, Outcome, word},
};

/// By when an event has been told on any machine.
const SOON: Duration = Duration::from_secs(60);

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
