//! HTTP over the daemon's socket.

use std::{fmt::Write as _, io::ErrorKind, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONTENT_TYPE, HOST},
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::CtlError;
use crate::wire::Problem;

/// How long an answer may take that is no stream.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for what the daemon has to work on: somewhat longer than it is allowed to.
const LONG_PATIENCE: Duration = Duration::from_secs(620);

/// Parameters of a query.
pub(super) type Pairs = [(&'static str, String)];

/// The daemon behind one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    socket: &'a Path,
}

impl<'a> Client<'a> {
    pub(super) fn new(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// A whole answer.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        pairs: &Pairs,
    ) -> Result<T, CtlError> {
        whole(self.open(path, pairs, "application/json"), PATIENCE).await
    }

    /// A whole answer to what the daemon looks up in its store, which ends by itself in time.
    pub(super) async fn query<T: DeserializeOwned>(
        &self,
        path: &str,
        pairs: &Pairs,
    ) -> Result<T, CtlError> {
        whole(self.open(path, pairs, "application/json"), LONG_PATIENCE).await
    }

    /// The whole answer to a text.
    pub(super) async fn send_text<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        pairs: &Pairs,
        body: String,
    ) -> Result<T, CtlError> {
        let request = Request::builder()
            .method(method)
            .uri(target(path, pairs))
            .header(CONTENT_TYPE, "application/toml")
            .header(ACCEPT, "application/json");
        let answer =
            async { success(self.send(request, Full::from(body)).await?, CtlError::Refused).await };
        whole(answer, LONG_PATIENCE).await
    }

    /// The body of an answer that may have no end.
    pub(super) async fn open(
        &self,
        path: &str,
        pairs: &Pairs,
        accept: &str,
    ) -> Result<Incoming, CtlError> {
        let request = Request::get(target(path, pairs)).header(ACCEPT, accept);
        // What the daemon cannot understand of it was typed so.
        success(self.send(request, Full::default()).await?, CtlError::Usage).await
    }

    /// The body of the answer to a text, which may be long.
    pub(super) async fn post(
        &self,
        path: &str,
        pairs: &Pairs,
        (kind, body): (&str, String),
        accept: &str,
    ) -> Result<Incoming, CtlError> {
        let request = Request::post(target(path, pairs));
        let request = request.header(CONTENT_TYPE, kind).header(ACCEPT, accept);
        success(self.send(request, Full::from(body)).await?, CtlError::Refused).await
    }

    async fn send(
        &self,
        request: Builder,
        body: Full<Bytes>,
    ) -> Result<Response<Incoming>, CtlError> {
        let stream = UnixStream::connect(self.socket).await.map_err(|source| {
            let path = self.socket.to_owned();
            match source.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => CtlError::NoDaemon(path),
                ErrorKind::PermissionDenied => CtlError::NoPermission(path),
                _ => CtlError::Connect { path, source },
            }
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Drives the connection; it ends with the sender, and its errors reach the body too.
        tokio::spawn(connection);
        let request = request
            .header(HOST, "flowd")
            .body(body)
            .map_err(|error| CtlError::Nonsense(error.to_string()))?;
        Ok(sender.send_request(request).await?)
    }
}

/// Whether another question would have been answered.
fn is_of_the_question(status: StatusCode) -> bool {
    [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&status)
}

/// The body of an answer, unless it is a refusal.
async fn success(
    response: Response<Incoming>,
    not_understood: fn(String) -> CtlError,
) -> Result<Incoming, CtlError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = response.into_body().collect().await?.to_bytes();
    Err(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if !problem.problems.is_empty() => CtlError::Policy(problem.problems),
        Ok(problem) if is_of_the_question(status) => {
            not_understood(super::text::visible(&problem.detail))
        }
        Ok(problem) => CtlError::Refused(super::text::visible(&problem.detail)),
        Err(_) => CtlError::Nonsense(format!("it says {status}")),
    })
}

/// An answer, whole and within some time.
async fn whole<T: DeserializeOwned>(
    body: impl Future<Output = Result<Incoming, CtlError>>,
    patience: Duration,
) -> Result<T, CtlError> {
    let answer = async { Ok::<_, CtlError>(body.await?.collect().await?.to_bytes()) };
    let bytes = tokio::time::timeout(patience, answer)
        .await
        .map_err(|_| CtlError::Timeout(patience.as_secs()))??;
    serde_json::from_slice(&bytes).map_err(|error| CtlError::Nonsense(error.to_string()))
}

fn target(path: &str, pairs: &Pairs) -> String {
    let query: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// Percent-encodes what RFC 3986 does not call unreserved.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string grows");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(target("/v1/status", &[]), "/v1/status");
        let pairs = [("peer", "a b+ü/=".to_owned()), ("dst", "fd00::/8".to_owned())];
        assert_eq!(
            target("/v1/flows", &pairs),
            "/v1/flows?peer=a%20b%2B%C3%BC%2F%3D&dst=fd00%3A%3A%2F8"
        );
    }
}
