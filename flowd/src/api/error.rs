//! Errors as the API tells them: problem details (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{
    audit::NotAudited,
    live::{NotApplied, Stopped},
    policy,
    store::{AuditError, ProveError, ReadError},
    wire::Problem,
};

/// A request that gets no answer; the text is one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    /// It can be understood, and not be followed.
    #[error("{0}")]
    Senseless(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Method(String),
    #[error("{0}")]
    NotAcceptable(String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Store(#[from] ReadError),
    #[error("the query was cut off")]
    CutOff,
    #[error(
        "too many answers wait for clients that do not read them: try again when those have \
         gone, or ask for less"
    )]
    Busy,
    #[error("others send or check policies just now: try again in a moment")]
    Crowded,
    /// Who asks may not.
    #[error("{0}")]
    Forbidden(String),
    #[error(
        "you ask more, or more that is new, than one user may at a time: wait a second, and ask less \
         often"
    )]
    TooMany,
    #[error(transparent)]
    NotAudited(#[from] NotAudited),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// A policy that is wrong.
    #[error("the policy has {} problems; the policy in force stays: {}", .0.len(), .0[0])]
    Policy(Vec<policy::Problem>),
    /// What would hurt whoever asks for it.
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::Stopped(_) | Self::CutOff | Self::Busy | Self::Crowded | Self::NotAudited(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Policy(_) | Self::Senseless(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Store(
                ReadError::TooLong(_)
                | ReadError::Abandoned
                | ReadError::Beside(_)
                | ReadError::Removed,
            )
            | Self::Prove(ProveError::TooLong(_) | ProveError::Abandoned) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(
                ReadError::TooManyGroups(_)
                | ReadError::Statement(_)
                | ReadError::TooMuchMemory(_)
                | ReadError::TooLittleRoom(_),
            ) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(_) | Self::NotApplied(_) | Self::Audit(_) | Self::Prove(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if let Self::Store(error) = &self
            && status == StatusCode::INTERNAL_SERVER_ERROR
        {
            tracing::error!(%error, "a query failed");
        }
        let detail = self.to_string();
        let problems = match self {
            Self::Policy(problems) => problems,
            _ => Vec::new(),
        };
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("error").to_owned(),
            status: status.as_u16(),
            detail,
            problems,
        };
        let mut response = (status, Json(problem)).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
