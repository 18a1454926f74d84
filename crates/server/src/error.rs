//! Errors as clients see them: one HTTP status per engine class, in one table,
//! and the texts of the server itself that clients match on.

use capsa_engine::{Class, Error};
use hyper::StatusCode;

/// An answer that is an error: `{"message":…}` with a status of 400 or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

/// The answer to every verb of swarm mode.
pub(crate) const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
    \"docker swarm join\" to connect this node to swarm and try again.";

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn no_such_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    pub(crate) fn invalid_json(error: &serde_json::Error) -> Self {
        Self::bad_request(format!("invalid JSON: {error}"))
    }
}

/// The one table of classes.
pub(crate) fn status_of(class: Class) -> StatusCode {
    match class {
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Conflict => StatusCode::CONFLICT,
        Class::InvalidInput => StatusCode::BAD_REQUEST,
        Class::Denied => StatusCode::FORBIDDEN,
        Class::Unavailable => StatusCode::NOT_IMPLEMENTED,
        Class::Exhausted | Class::Kernel | Class::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::new(status_of(error.class), error.to_string())
    }
}
