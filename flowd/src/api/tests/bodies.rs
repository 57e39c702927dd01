//! Requests with bodies: how much and how long, and what becomes of their connections.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use axum::{
    Router, body::Bytes, extract::rejection::BytesRejection, http::StatusCode, middleware,
    routing::post,
};
use tokio::net::UnixListener;

use super::{
    Live, Request, Served,
    limits::{SOON, state},
};
use crate::{
    api::{
        self, Access, ApiState,
        bodies::{self, READER_BYTES},
        door::Door,
        serve::{SOCKET, serve},
    },
    audit::Log,
    wire,
};

const BODY: &str = "default = \"allow\"\n";
/// Its body is read whole, and then it is refused.
const READ: &str = "POST /v1/policy/check?via=x";

fn connect(socket: &Path) -> UnixStream {
    let client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// The head of a request, with the promise of a body.
fn promise(client: &mut UnixStream, request: &str, length: usize) {
    let head = format!("{request} HTTP/1.1\r\nHost: flowd\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
}

/// Asks, with the body or only the promise of one, and reads the answer; its head.
fn ask(client: &mut UnixStream, request: &str, body: &str) -> String {
    promise(client, request, BODY.len());
    // It may have been answered already.
    let _refused = client.write_all(body.as_bytes());
    answer(client).0
}

/// Head and body.
fn answer(client: &mut UnixStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Whoever goes on in such a connection would never know what became of the next request.
#[test]
fn who_sends_a_body_that_nobody_reads_is_told_that_the_connection_ends() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let served = Served::start();
    let cases = [
        ("POST /v1/policy/replay?since=1h&since=2h", "400"),
        ("DELETE /v1/policy/replay", "405"),
        ("POST /v1/flows", "405"),
        ("POST /v1/nothing", "404"),
        ("GET /v1/sql", "200"),
    ];
    for (request, status) in cases {
        for body in ["", BODY] {
            let mut client = connect(&served.socket);
            let head = ask(&mut client, request, body);
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{request}: {head}");
            let end = client.read(&mut [0]).map_err(|error| error.kind());
            assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{request}: {end:?}");
        }
    }
}

#[test]
fn a_connection_goes_on_behind_a_body_that_was_read() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let served = Served::start();
    let mut client = connect(&served.socket);
    for request in [READ, "POST /v1/sql?format=none"].repeat(2) {
        let head = ask(&mut client, request, BODY);
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }
}

#[test]
fn a_long_policy_takes_more_than_the_right_to_read() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let long = "#".repeat(READER_BYTES + 1);
    let reader = Served::with(SOON, Access::reading());
    for (served, length, status, text) in [
        (&reader, READER_BYTES, "400", "`via` is `x`"),
        (&reader, READER_BYTES + 1, "413", "and of those who may only read 1048576"),
        (&Served::start(), READER_BYTES + 1, "400", "`via` is `x`"),
    ] {
        let mut client = connect(&served.socket);
        promise(&mut client, READ, length);
        client.write_all(&long.as_bytes()[..length]).unwrap();
        let (head, body) = answer(&mut client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")) && body.contains(text), "{body}");
    }
}

/// Whether something can be read.
fn is_answered(client: &UnixStream) -> bool {
    let mut polled = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: it is one descriptor, which is open.
    unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
}

#[test]
fn bodies_that_do_not_come_take_so_much_room_and_no_more() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let served = Served::with(SOON, Access::reading());
    let long = || {
        let mut client = connect(&served.socket);
        promise(&mut client, READ, READER_BYTES);
        client
    };
    let mut waiting: Vec<_> = (0..17).map(|_| long()).collect();
    let start = Instant::now();
    let mut refused = loop {
        if let Some(index) = waiting.iter().position(is_answered) {
            break waiting.swap_remove(index);
        }
        assert!(start.elapsed() < SOON);
    };
    let (head, body) = answer(&mut refused);
    assert!(
        head.starts_with("HTTP/1.1 503") && body.contains("others send or check policies"),
        "{body}"
    );
    assert!(!waiting.iter().any(is_answered), "there is room for 16");
    let head = ask(&mut connect(&served.socket), READ, BODY);
    assert!(head.starts_with("HTTP/1.1 400"), "a short one needs none: {head}");
    drop(waiting);
    loop {
        let mut client = long();
        let _refused = client.write_all("#".repeat(READER_BYTES).as_bytes());
        let (head, _) = answer(&mut client);
        if head.starts_with("HTTP/1.1 400") {
            break;
        }
        assert!(start.elapsed() < SOON, "those who have gone have left their room: {head}");
    }
}

#[test]
fn a_body_that_does_not_come_in_time_is_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("late.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let take = async |body: Result<Bytes, BytesRejection>| match body {
        Ok(_) => StatusCode::OK,
        Err(rejection) => rejection.status(),
    };
    let watch = middleware::from_fn_with_state(Duration::from_millis(200), bodies::watch);
    let router = Router::new().route("/", post(take)).layer(watch);
    let door = Door::new(listener, Log::new().0);
    runtime.spawn(serve(door, router, SOCKET, std::future::pending()));
    let mut client = connect(&socket);
    let head = ask(&mut client, "POST /", "");
    assert!(
        head.starts_with("HTTP/1.1 400") && head.contains("\r\nconnection: close\r\n"),
        "{head}"
    );
}

/// The drain thread makes them: what is asked at once may not keep it from draining.
#[test]
fn policies_are_checked_one_after_the_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let (live, inbox, _watchers) = Live::new();
    let socket = dir.path().join("checks.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let state = ApiState { access: Access::reading().into(), ..state(dir.path(), live) };
    runtime.spawn(api::serve(listener, state, std::future::pending()));
    let check = || {
        let mut client = connect(&socket);
        promise(&mut client, "POST /v1/policy/check", BODY.len());
        client.write_all(BODY.as_bytes()).unwrap();
        client
    };
    let first = check();
    let question = inbox.recv_timeout(SOON).unwrap();
    let Request::CheckPolicy { reply: _reply, turn, .. } = question else { panic!("{question:?}") };
    let mut second = check();
    let other = inbox.recv_timeout(Duration::from_millis(100));
    assert!(other.is_err(), "{other:?}");
    drop(first);
    let other = inbox.recv_timeout(Duration::from_millis(100));
    assert!(other.is_err(), "what nobody waits for is under way all the same: {other:?}");
    drop(turn);
    let question = inbox.recv_timeout(SOON).unwrap();
    let Request::CheckPolicy { reply, .. } = question else { panic!("{question:?}") };
    reply.send(wire::PolicyReport::default()).unwrap();
    let (head, body) = answer(&mut second);
    assert!(head.starts_with("HTTP/1.1 200"), "{body}");
}
