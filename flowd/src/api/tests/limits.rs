//! How long a query goes on: not longer than its time, and not when nobody waits for it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use axum::{Router, extract::State, routing::get};
use tokio::{net::UnixListener, sync::Semaphore};

use super::{Live, Pending, Request, Served};
use crate::{
    api::{
        self, Access, ApiState,
        door::Door,
        error::ApiError,
        flows::{blocking, place},
        serve::{SOCKET, serve},
    },
    audit::Log,
    flows::Filter,
    store::{AuditReader, ReadError, Reader},
    wire,
};

pub(super) const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_and_says_what_to_do() {
    let served = Served::with_query_timeout(Duration::ZERO);
    // By itself a series is of the last day.
    let series = "series?since=2026-11-20&until=2026-11-22";
    for path in ["summary", "top", series, "flows", "flows?sort=bytes", "records"] {
        let (status, text) = served.text(&format!("/v1/{path}"), "*/*").await;
        assert_eq!(status, 503, "{path}: {text}");
        let problem: wire::Problem = serde_json::from_str(&text).unwrap();
        let expected = "the query took longer than 0 s: narrow its range or its filters, or raise \
            `api.query_timeout_ms`";
        assert_eq!(problem.detail, expected, "{path}");
    }
    // What is no query is answered.
    assert_eq!(served.text("/v1/peers", "*/*").await.0, 200);
}

#[tokio::test]
async fn nobody_waits_for_others_longer_than_a_query_may_take() {
    static PLACES: Semaphore = Semaphore::const_new(1);
    let limit = Duration::from_millis(50);
    let taken = place(&PLACES, limit).await.unwrap();
    let refused = place(&PLACES, limit).await.unwrap_err();
    assert!(matches!(refused, ReadError::TooLong(_)), "{refused}");
    drop(taken);
    drop(place(&PLACES, limit).await.unwrap());
}

/// What an API of a store needs that nobody limits.
pub(super) fn state(dir: &Path, live: Live) -> ApiState {
    // Nobody writes the log: what is told of requests is not held.
    let (audit, told, _lost) = Log::new();
    std::thread::spawn(move || told.into_iter().for_each(drop));
    ApiState {
        live,
        reader: Reader::new(dir, "gw"),
        gateway: "gw".into(),
        query_timeout: Duration::from_secs(3_600),
        access: Access::of(&[], &[], &[]).into(),
        audit,
        audit_reader: AuditReader::new(dir),
    }
}

/// What it asks, and whom it tells that it has begun, and why it ended.
type Endless = (ApiState, mpsc::Sender<()>, mpsc::Sender<ReadError>);

/// Asks the store the same over and over, until that is refused.
async fn endless(State((state, begin, why)): State<Endless>) -> String {
    let answer: Result<(), ApiError> = blocking(&state, move |reader| {
        begin.send(()).expect("the test waits");
        loop {
            if let Err(error) = reader.summary(&Filter::default(), 9) {
                why.send(error).expect("the test waits");
                return Ok(());
            }
        }
    })
    .await;
    format!("{answer:?}")
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_query() {
    let served = Served::start();
    let (live, _inbox, _watchers) = Live::new();
    let (why, ended) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let state = state(served.dir(), live);
    let socket = served.dir().join("endless.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let router = Router::new().route("/", get(endless)).with_state((state, begin, why));
    let door = Door::new(listener, Log::new().0);
    let server = tokio::spawn(serve(door, router, SOCKET, std::future::pending()));

    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: flowd\r\n\r\n").unwrap();
    let wait = move || begun.recv_timeout(SOON);
    tokio::task::spawn_blocking(wait).await.unwrap().expect("the query has begun");
    drop(client);
    let error = tokio::task::spawn_blocking(move || ended.recv_timeout(SOON)).await.unwrap();
    assert!(matches!(error, Ok(ReadError::Abandoned)), "{error:?}");
    server.abort();
}

/// A request on a connection of its own, whose answer is read later.
fn ask(socket: &Path, path: &str) -> UnixStream {
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: flowd\r\nConnection: close\r\n\r\n").unwrap();
    client
}

fn answer(mut client: UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn queries_that_wait_for_the_drain_thread_hold_up_none_that_does_not() {
    // Not one thread for each of them.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.max_blocking_threads(16).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let served = Served::start();
    let (live, inbox, _watchers) = Live::new();
    let socket = served.dir().join("stalled.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let state = state(served.dir(), live);
    runtime.spawn(api::serve(listener, state, std::future::pending()));

    let mut stalled: Vec<_> = (0..40).map(|_| ask(&socket, "/v1/summary")).collect();
    let next = || inbox.recv_timeout(SOON).expect("each asks the drain thread");
    let asked: Vec<_> = stalled.iter().map(|_| next()).collect();
    // Some have gone meanwhile.
    stalled.truncate(20);
    let text = answer(ask(&socket, "/v1/segments"));
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for question in asked {
        let Request::Summary { reply, .. } = question else { panic!("{question:?}") };
        let _gone = reply.send(Pending::default());
    }
    for client in stalled {
        let text = answer(client);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let last = ask(&socket, "/v1/summary");
    drop((next(), inbox));
    let text = answer(last);
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("shutting down"), "{text}");
}

#[test]
fn the_time_of_a_query_begins_when_the_drain_thread_has_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let served = Served::start();
    let (live, inbox, _watchers) = Live::new();
    let socket = served.dir().join("late.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let limit = Duration::from_secs(2);
    let state = ApiState { query_timeout: limit, ..state(served.dir(), live) };
    runtime.spawn(api::serve(listener, state, std::future::pending()));
    let client = ask(&socket, "/v1/summary");
    let question = inbox.recv_timeout(SOON).unwrap();
    std::thread::sleep(limit);
    let Request::Summary { reply, .. } = question else { panic!("{question:?}") };
    reply.send(Pending::default()).unwrap();
    let text = answer(client);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}
