//! Why a call to the daemon failed.

use std::io;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?")]
    Connect {
        /// Where.
        endpoint: String,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("{message}")]
    Api {
        /// HTTP status, 400 or more.
        status: u16,
        /// The daemon's own text.
        message: String,
    },
    /// The daemon did not hand the connection over.
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded {
        /// HTTP status instead of 101.
        status: u16,
    },
    /// The connection broke or did not speak HTTP.
    #[error("error during connect: {0}")]
    Http(#[from] hyper::Error),
    /// The request could not be written down.
    #[error("invalid request: {0}")]
    Request(#[from] hyper::http::Error),
    /// A body could not be made JSON.
    #[error("encoding a request: {0}")]
    Encode(serde_json::Error),
    /// The answer is no JSON of the expected shape.
    #[error("unexpected answer to {path}: {source}")]
    Decode {
        /// What was asked.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Reading or writing a stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ClientError {
    /// The HTTP status when it was the daemon that said no.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether nobody listens at the endpoint (so that a daemon may be started).
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
