//! What becomes of a connection whose request had a body.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use super::{Served, limits::SOON};

const BODY: &str = "default = \"allow\"\n";

fn connect(served: &Served) -> UnixStream {
    let client = UnixStream::connect(&served.socket).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Asks, with the body or only the promise of one. The head of the answer, which is read whole.
fn ask(client: &mut UnixStream, request: &str, body: &str) -> String {
    let length = BODY.len();
    let head = format!("{request} HTTP/1.1\r\nHost: flowd\r\nContent-Length: {length}\r\n\r\n");
    client.write_all((head + body).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    client.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    head
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
            let mut client = connect(&served);
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
    let mut client = connect(&served);
    for request in ["POST /v1/policy/replay?min_bytes=null", "POST /v1/sql?format=none"].repeat(2) {
        let head = ask(&mut client, request, BODY);
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }
}
