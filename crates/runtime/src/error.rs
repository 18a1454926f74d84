//! What can go wrong in making, joining or ending a container.

use crate::protocol::Failure;

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the kernel.
    #[error("{0}")]
    Kernel(#[from] capsa_sys::Error),
    /// A call to the kernel, within a named step.
    #[error("{stage}: {source}")]
    Step {
        /// The step.
        stage: &'static str,
        /// What the kernel said.
        source: capsa_sys::Error,
    },
    /// A message on a channel that nobody here speaks.
    #[error("message on the control channel: {0}")]
    Message(String),
    /// Something asked for that cannot be done.
    #[error("{what}: {why}")]
    Invalid {
        /// The field or object.
        what: String,
        /// Why not.
        why: String,
    },
    /// Init reported that it could not go on.
    #[error("{0}")]
    Init(Failure),
    /// Init went away without a word.
    #[error("the container's first process ended before it was ready")]
    InitGone,
}

/// The result of most functions here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A field that cannot be honoured.
    pub fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    /// As it goes to the daemon.
    pub fn into_failure(self, stage: &str) -> Failure {
        match self {
            Self::Init(failure) => failure,
            Self::Step { stage, ref source } => Failure::engine(stage, source),
            other => Failure::engine(stage, other),
        }
    }
}

/// Names the step in which a kernel call failed.
pub(crate) trait Stage<T> {
    /// Turns a kernel error into one that tells its step.
    fn stage(self, stage: &'static str) -> Result<T>;
}

impl<T> Stage<T> for capsa_sys::Result<T> {
    fn stage(self, stage: &'static str) -> Result<T> {
        self.map_err(|source| Error::Step { stage, source })
    }
}
