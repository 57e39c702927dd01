//! Every request: whether it may be, and what the audit log is told of it.
//!
//! - who may not, or asks too much, is refused before anything is looked at
//! - an answer of one piece is one event when it is made
//! - a stream is two: when it begins, and how it ended, with what was sent of it
//! - one whose client goes before there is an answer is told as such; what changes something goes on
//!   without it

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hyper::body::{Frame, SizeHint};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    access::{Access, Right},
    budget::{Budget, Taken, Trace},
    error::ApiError,
    flows::now_ms,
    grant,
    params::Params,
};
use crate::audit::{Actor, Caller, Event, Hash, Log, Outcome, word};

/// Characters of a path or query that are kept of somebody who may not, or means nothing.
const UNWANTED_CHARS: usize = 256;
/// What an entry has besides what was asked.
const ENTRY_BYTES: usize = 512;
/// Groups that are kept of somebody who may not.
const GROUPS: usize = 64;
/// Of somebody who may.
pub(super) const WANTED_CHARS: usize = 4_096;

/// What a handler adds to the event of its request: it puts this into the extensions of its answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Details(pub(super) Map<String, Value>);

/// What it takes to judge and to tell.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) access: Arc<Access>,
    pub(super) budget: Budget,
    pub(super) log: Log,
}

/// Lets a request through if it may be, and tells of it.
pub(super) async fn guard(
    State(witness): State<Witness>,
    request: Request,
    next: Next,
) -> Response {
    let Witness { access, budget, log } = witness;
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        return ApiError::Forbidden("nobody knows who you are".to_owned()).into_response();
    };
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let about = |event: Event, chars| describe(event, &method, &uri, chars);
    let by =
        |word, outcome| Event::new(now_ms(), word, Actor::Caller(Caller::clone(&caller)), outcome);
    let right = needed(&method, uri.path());
    let refused = match access.grant(&caller) {
        _ if access.may(&caller, right) => None,
        Some(grant) => grant::refusal(grant, &method, &uri).map(str::to_owned),
        None => Some(refusal(&caller, right)),
    };
    if let Some(refusal) = refused {
        let groups = caller.groups.iter().take(GROUPS);
        let groups: Vec<Value> = groups.map(|gid| Value::from(*gid)).collect();
        let event = by(word::ACCESS_REFUSED, Outcome::Refused).with("groups", groups);
        log.note(about(event, UNWANTED_CHARS));
        return ApiError::Forbidden(refusal).into_response();
    }
    let trace = trace(&caller, &method, &uri);
    let taken = if access.is_own(&caller) {
        Some(Taken::New)
    } else {
        budget.take(caller.uid, trace, Instant::now())
    };
    let Some(taken) = taken else {
        log.note(by(word::ACCESS_LIMITED, Outcome::Refused));
        return ApiError::TooMany.into_response();
    };
    let is_change = changes(&method, uri.path());
    let asked = Asked { log, caller, method, uri, taken, is_answered: false };
    if !is_change {
        return answer(asked, request, next).await;
    }
    let answered = tokio::spawn(answer(asked, request, next)).await;
    answered.unwrap_or_else(|_| ApiError::CutOff.into_response())
}

/// A request under way, which is told also where nobody waits for its answer any more.
struct Asked {
    log: Log,
    caller: Arc<Caller>,
    method: Method,
    uri: Uri,
    taken: Taken,
    is_answered: bool,
}

impl Asked {
    fn event(&self, word: &'static str, outcome: Outcome) -> Event {
        let Self { log: _, caller, method, uri, taken, is_answered: _ } = self;
        let by = Actor::Caller(Caller::clone(caller));
        let is_again = *taken == Taken::Again;
        let event = Event { is_again, ..Event::new(now_ms(), word, by, outcome) };
        let chars = if event.is_unwanted() { UNWANTED_CHARS } else { WANTED_CHARS };
        describe(event, method, uri, chars)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let path = self.uri.path();
        let word = match stream_words(path) {
            Some((_, [_, cut_short])) => cut_short,
            None => word_of(&self.method, path, StatusCode::SERVICE_UNAVAILABLE),
        };
        self.log.note(self.event(word, Outcome::Failed).with("client", "gone"));
    }
}

/// Has a request answered, and tells of it.
async fn answer(mut asked: Asked, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    asked.is_answered = true;
    let Asked { log, method, uri, .. } = &asked;
    let status = response.status();
    let Details(details) = response.extensions_mut().remove().unwrap_or_default();
    let is_stream = response.body().size_hint().exact().is_none();
    let (word, outcome) = match (stream_words(uri.path()), is_stream) {
        (Some((begun, _)), true) => (begun, Outcome::Begun),
        _ => (word_of(method, uri.path(), status), outcome_of(status)),
    };
    let mut event = asked.event(word, outcome).with("status", status.as_u16());
    event.details.extend(details);
    if !event.is_unwanted()
        && is_stream
        && let Some((_, words)) = stream_words(uri.path())
    {
        let is_csv = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/csv"));
        let sent = Sent::new(log.clone(), event.clone(), words, is_csv);
        log.note(event);
        return response.map(|body| Body::new(Told { body, sent: Some(sent) }));
    }
    log.note(event);
    response
}

/// What a request will leave in the log.
fn trace(caller: &Caller, method: &Method, uri: &Uri) -> Trace {
    let asked = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let program = caller.executable.as_ref().map_or(0, String::len);
    let bytes = ENTRY_BYTES + asked.min(2 * WANTED_CHARS) + program;
    let bytes = |entries: usize| u32::try_from(entries * bytes).unwrap_or(u32::MAX);
    match uri.path() {
        // Each of them is told, at both ends.
        "/v1/sql" => Trace::alone(bytes(2).saturating_add(2 * WANTED_CHARS as u32)),
        path if stream_words(path).is_some() || changes(method, path) => Trace::alone(bytes(2)),
        "/v1/verify" | "/v1/audit/verify" => Trace::alone(bytes(1)),
        _ => {
            let Caller { uid: _, gid, pid: _, groups, name: _, executable } = caller;
            Trace::of(&(gid, groups, executable, method, uri), bytes(1))
        }
    }
}

/// Whether a request may change something.
fn changes(method: &Method, path: &str) -> bool {
    path == "/v1/policy" && method != Method::GET && method != Method::HEAD
}

/// What a path needs. What is not known here is only read.
fn needed(method: &Method, path: &str) -> Right {
    match path {
        "/v1/audit" | "/v1/audit/verify" => Right::Administer,
        _ if changes(method, path) => Right::Administer,
        _ => Right::Read,
    }
}

fn refusal(caller: &Caller, right: Right) -> String {
    let who = caller.who().escape_debug().to_string();
    match right {
        Right::Read => format!(
            "user {who} may not ask this flowd: become a member of a group in its `api.read_groups`"
        ),
        Right::Administer => format!(
            "user {who} may not do that: it takes root, or a member of a group in \
             `api.admin_groups`"
        ),
    }
}

/// The word for the beginning of a stream, and those for its end, whole and not.
fn stream_words(path: &str) -> Option<(&'static str, Ends)> {
    match path {
        "/v1/watch" => Some((word::WATCH_STARTED, [word::WATCH_FINISHED, word::WATCH_FINISHED])),
        "/v1/records" | "/v1/sql" => {
            Some((word::EXPORT_STARTED, [word::EXPORT_FINISHED, word::EXPORT_ABORTED]))
        }
        _ => None,
    }
}

type Ends = [&'static str; 2];

fn word_of(method: &Method, path: &str, status: StatusCode) -> &'static str {
    let means_nothing =
        [StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_ACCEPTABLE];
    match path {
        _ if means_nothing.contains(&status) => word::REQUEST_MALFORMED,
        "/v1/policy" if method == Method::PUT && status.is_success() => word::POLICY_APPLIED,
        "/v1/policy" if method == Method::PUT => word::POLICY_REFUSED,
        "/v1/policy/check" => word::POLICY_CHECKED,
        "/v1/audit" => word::AUDIT_READ,
        "/v1/audit/verify" => word::AUDIT_VERIFIED,
        "/v1/verify" => word::HISTORY_VERIFIED,
        _ => word::QUERY,
    }
}

fn outcome_of(status: StatusCode) -> Outcome {
    if status.is_success() {
        Outcome::Done
    } else if status.is_client_error() {
        Outcome::Refused
    } else {
        Outcome::Failed
    }
}

/// What was asked: the path, and each parameter.
fn describe(event: Event, method: &Method, uri: &Uri, most: usize) -> Event {
    let event = event.on(start(uri.path(), most)).with("method", method.as_str());
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return event };
    match Params::in_uri(uri) {
        Ok(params) if query.len() <= most => {
            // Where a reader of this log is in it would make each look another one, and so an entry.
            let is_kept =
                |(name, _): &(&str, &str)| event.word != word::AUDIT_READ || *name != "after";
            let pairs = params
                .pairs()
                .filter(is_kept)
                .map(|(name, value)| (name.to_owned(), Value::from(value)));
            let pairs: Map<_, _> = pairs.collect();
            event.with("query", pairs)
        }
        // As it was sent; the hash is of all of it.
        _ => {
            let event = event.with("raw_query", start(query, most));
            if query.len() <= most {
                return event;
            }
            event.with("raw_query_sha256", Hash::of(query.as_bytes()).to_string())
        }
    }
}

/// So much of a text.
pub(super) fn start(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// What was sent of a stream.
struct Sent {
    log: Log,
    /// How it began.
    event: Event,
    words: Ends,
    bytes: u64,
    lines: u64,
    hash: Sha256,
    is_csv: bool,
    is_quoted: bool,
}

impl Sent {
    fn new(log: Log, event: Event, words: Ends, is_csv: bool) -> Self {
        let hash = Sha256::new();
        Self { log, event, words, bytes: 0, lines: 0, hash, is_csv, is_quoted: false }
    }

    fn count(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.hash.update(data);
        for byte in data {
            // A line's end in quotes is a part of a cell.
            self.is_quoted ^= self.is_csv && *byte == b'"';
            self.lines += u64::from(*byte == b'\n' && !self.is_quoted);
        }
    }

    fn tell(self, is_whole: bool) {
        let Self { log, mut event, words, bytes, lines, hash, is_csv, .. } = self;
        event.at_ms = now_ms();
        (event.word, event.outcome) =
            if is_whole { (words[0], Outcome::Done) } else { (words[1], Outcome::Failed) };
        if event.word == word::WATCH_FINISHED {
            // Nobody watches to the end.
            event.outcome = Outcome::Done;
        }
        let sha256 = Hash(hash.finalize().into()).to_string();
        let lines = lines.saturating_sub(u64::from(is_csv));
        log.note(event.with("lines", lines).with("bytes", bytes).with("sha256", sha256));
    }
}

/// A stream that tells how it ended.
struct Told {
    body: Body,
    sent: Option<Sent>,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, sent } = self.get_mut();
        let frame = ready!(Pin::new(body).poll_frame(context));
        match (&frame, sent.as_mut()) {
            (Some(Ok(frame)), Some(sent)) => {
                if let Some(data) = frame.data_ref() {
                    sent.count(data);
                }
            }
            (None, _) => {
                if let Some(sent) = sent.take() {
                    sent.tell(true);
                }
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let is_whole = self.body.is_end_stream();
        if let Some(sent) = self.sent.take() {
            sent.tell(is_whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode, Uri};

    use super::{trace, word_of};
    use crate::audit::{Actor, Caller, Event, Outcome};

    /// What is never folded is paid for each time.
    #[test]
    fn what_makes_an_entry_of_its_own_is_paid_for_as_such() {
        let caller = Caller::default();
        let is_alone = |method: &Method, path: &'static str| {
            let trace = trace(&caller, method, &Uri::from_static(path));
            trace.is_alone()
        };
        for (method, path) in [
            (Method::GET, "/v1/verify"),
            (Method::GET, "/v1/audit/verify"),
            (Method::PUT, "/v1/policy"),
            (Method::GET, "/v1/policy"),
            (Method::POST, "/v1/policy/check"),
            (Method::GET, "/v1/audit"),
            (Method::GET, "/v1/flows"),
        ] {
            let word = word_of(&method, path, StatusCode::OK);
            let event = Event::new(0, word, Actor::Auto, Outcome::Done);
            assert_eq!(is_alone(&method, path), !event.may_fold(), "{method} {path}");
        }
        assert!(is_alone(&Method::GET, "/v1/records") && is_alone(&Method::POST, "/v1/sql"));
    }

    #[test]
    fn another_group_is_another_entry() {
        let uri = Uri::from_static("/v1/flows");
        let of = |gid| trace(&Caller { gid, ..Caller::default() }, &Method::GET, &uri);
        assert_ne!(of(1), of(2));
    }
}
