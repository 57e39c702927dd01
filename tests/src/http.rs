//! HTTP/1.1 on flowd's socket as it goes over the wire, for clients that do not behave.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that has been sent, and whose answer nobody has read.
#[derive(Debug)]
pub struct Sent(UnixStream);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As in `200 OK`.
    pub status: u16,
    /// Without the framing.
    pub body: Vec<u8>,
}

/// A connection without a request.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks for `path` in the media type `accept`, and reads nothing.
pub fn send(mut stream: UnixStream, path: &str, accept: &str) -> io::Result<Sent> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: flowd\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(Sent(stream))
}

/// Asks for `path` as JSON and reads the answer.
pub fn get(socket: &Path, path: &str) -> Answer {
    let stream = connect(socket).expect("flowd listens");
    send(stream, path, "application/json").expect("flowd reads").answer().expect("an answer")
}

impl Sent {
    /// Everything until flowd closes the connection.
    pub fn answer(mut self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        // Not shut down for writing: to flowd that is a client that has gone.
        self.0.read_to_end(&mut bytes)?;
        parse(&bytes).ok_or_else(|| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

impl Answer {
    /// The body, which must be this shape, of an answer that must be 200.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, 200, "{text}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// `None`: it breaks off, or is no answer.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
    let body = &bytes[end + 4..];
    if head.contains("\r\ntransfer-encoding: chunked") {
        return Some(Answer { status, body: chunks(body)? });
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (length.parse() == Ok(body.len())).then(|| Answer { status, body: body.to_vec() })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = std::str::from_utf8(&rest[..line]).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        rest = &rest[line + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_whole_or_none() {
        let cases: [(&str, Option<(u16, &str)>); 6] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((200, "{}"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None),
            (
                "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
                Some((503, "abc")),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = parse(text.as_bytes()).map(|answer| (answer.status, answer.body));
            let expected = expected.map(|(status, body)| (status, body.as_bytes().to_vec()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
