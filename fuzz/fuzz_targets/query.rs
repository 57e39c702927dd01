//! The parameters of `/v1/flows`: refused in one line, or a filter and a position that mean the
//! same when they are written out again.

#![no_main]

use std::fmt::Write as _;

use flowd::{
    api::query::{self, Query, Sorting},
    flows::{Decider, Filter, State},
};
use libfuzzer_sys::fuzz_target;

/// 2026-11-21T04:00:00Z.
const NOW_MS: i64 = 1_795_233_600_000;

fuzz_target!(|text: &str| {
    match query::read(text, NOW_MS) {
        Ok(query) => {
            let written = write(&query);
            let again = query::read(&written, NOW_MS + 1);
            assert_eq!(again.as_ref(), Ok(&query), "{text:?} as {written:?}");
            consistent(&query.filter);
        }
        Err(refusal) => {
            assert!(!refusal.is_empty() && !refusal.contains(char::is_control), "{refusal:?}");
        }
    }
});

fn consistent(filter: &Filter) {
    if let (Some(since), Some(until)) = (filter.since_ms, filter.until_ms) {
        assert!(since < until);
    }
    for net in [filter.src, filter.dst, filter.ip].into_iter().flatten() {
        assert_eq!(net, net.trunc(), "host bits");
    }
}

/// The query string that says the same.
fn write(query: &Query) -> String {
    let Query { filter, limit, by: Sorting { sort, order }, after: _ } = query;
    let Filter {
        since_ms,
        until_ms,
        peer,
        user,
        src,
        dst,
        ip,
        port,
        src_port,
        dst_port,
        protocol,
        verdict,
        rule,
        initiator,
        interface,
        min_bytes,
        state,
    } = filter;
    let instant = |ms: &i64| {
        jiff::Timestamp::from_millisecond(*ms).expect("what was read is an instant").to_string()
    };
    let rule = rule.as_ref().map(|rule| match rule {
        Decider::Rule(id) => id.clone(),
        Decider::Nobody => "none".to_owned(),
    });
    let state = state.map(|state| match state {
        State::Open => "open".to_owned(),
        State::Closed => "closed".to_owned(),
    });
    let pairs = [
        ("since", since_ms.as_ref().map(instant)),
        ("until", until_ms.as_ref().map(instant)),
        ("peer", peer.clone()),
        ("user", user.clone()),
        ("src", src.map(|net| net.to_string())),
        ("dst", dst.map(|net| net.to_string())),
        ("ip", ip.map(|net| net.to_string())),
        ("port", port.map(|port| port.to_string())),
        ("src_port", src_port.map(|port| port.to_string())),
        ("dst_port", dst_port.map(|port| port.to_string())),
        ("protocol", protocol.map(|number| number.to_string())),
        ("verdict", verdict.map(|verdict| verdict.word().to_owned())),
        ("rule", rule),
        ("initiator", initiator.map(|initiator| initiator.word().to_owned())),
        ("interface", interface.clone()),
        ("min_bytes", min_bytes.map(|bytes| bytes.to_string())),
        ("state", state),
        ("limit", limit.map(|limit| limit.to_string())),
        ("sort", Some(sort.word().to_owned())),
        ("order", Some(order.word().to_owned())),
        ("cursor", query::cursor(query)),
    ];
    let pairs = pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

/// Every byte as `%XX`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").expect("a string grows");
        encoded
    })
}
