//! `/v1/openapi.json`: the API as OpenAPI 3.1 describes it.
//!
//! - `operations.rs` lists the endpoints, `operation.rs` is the shape of one
//! - `parameters.rs` says what each parameter may be, `patterns.rs` how texts in them look
//! - `schemas.rs` collects the shapes of answers, made from the types that are served
//!
//! Tests hold the document against the router and against every answer of the API's other tests.

mod operation;
mod operations;
mod parameters;
mod patterns;
mod schemas;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    body::Bytes,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use self::schemas::Schemas;
use super::{error::ApiError, params::Params};

/// As it is served: it never changes while the daemon runs.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_vec_pretty(&document()).expect("a document is JSON");
    text.into()
});

/// What is said of the API as a whole.
const DESCRIPTION: &str = "\
Flow logs of a WireGuard gateway, over the Unix socket of flowd: `curl --unix-socket \
/run/flowd/flowd.sock http://flowd/v1/status`. `docs/api.md` has examples.

- A parameter is given once; one that an endpoint does not know is refused. `HEAD` is answered \
wherever `GET` is.
- Instants are RFC 3339 in UTC with milliseconds. A record belongs to a range when its window ends \
in it: `since <= window_end < until`.
- Whatever may be null is there and null. Later versions of flowd may add members, and words to \
closed lists.
- Errors are problem details (RFC 9457); `detail` is one line that says what is wrong and what to \
do. A request is refused with 400 where it cannot be understood, and with 422 where it can and \
cannot be followed.
- Counters have up to 64 bits.";

/// `GET /v1/openapi.json`.
pub(super) async fn show(params: Params) -> Result<Response, ApiError> {
    params.only(&[])?;
    Ok(([(CONTENT_TYPE, "application/json")], TEXT.clone()).into_response())
}

/// The document.
fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations::all() {
        let path = paths.entry(operation.path).or_default();
        path.insert(operation.method.to_owned(), operation.json(&mut schemas));
    }
    let responses = operation::refusals(&mut schemas);
    let parameters: BTreeMap<_, _> =
        parameters::shared().iter().map(|parameter| (parameter.name, parameter.whole())).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "flowd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "http://flowd",
            "description": "the Unix socket; any host is taken",
        }],
        "paths": paths,
        "components": {
            "parameters": parameters,
            "responses": responses,
            "schemas": schemas.json(),
        },
    })
}

/// Every path, as people write it.
pub(super) fn paths() -> &'static [&'static str] {
    static PATHS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let mut paths: Vec<_> = operations::all().iter().map(|operation| operation.path).collect();
        paths.dedup();
        paths
    });
    &PATHS
}

#[cfg(test)]
pub(super) mod tests;
