//! What can go wrong in the engine, by class: who is at fault decides the class.
//!
//! The server maps a class to an HTTP status in one table; the engine knows no
//! HTTP. Each message names the object and what was attempted; `hint` says what
//! to do next where there is something to do.

use std::fmt;

/// Who is at fault; one HTTP status each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The named object does not exist.
    NotFound,
    /// The object is in a state, or a name or port is taken, so that this can't be done now.
    Conflict,
    /// The request is malformed or asks for the impossible.
    InvalidInput,
    /// Policy forbids it.
    Denied,
    /// Something this needs is not there at the moment, or not built yet.
    Unavailable,
    /// Disk, memory, addresses, id ranges or ports have run out.
    Exhausted,
    /// The kernel refused.
    Kernel,
    /// Data on disk fails its check.
    Corrupt,
}

/// An engine error: a class, a full sentence that names the object, and an optional hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Who is at fault.
    pub class: Class,
    /// What was attempted, on what, and what was answered.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The result of every engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `class`.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `NotFound`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Class::NotFound, message)
    }

    /// `Conflict`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    /// `InvalidInput`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::InvalidInput, message)
    }

    /// `Unavailable`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Class::Unavailable, message)
    }

    /// `Kernel`.
    pub fn kernel(message: impl Into<String>) -> Self {
        Self::new(Class::Kernel, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<capsa_store::Error> for Error {
    fn from(error: capsa_store::Error) -> Self {
        use capsa_store::Error as E;
        let class = match &error {
            E::Missing { .. } => Class::NotFound,
            E::NameTaken { .. } | E::InUse { .. } | E::AddressTaken { .. } => Class::Conflict,
            E::Ambiguous { .. } | E::BadName { .. } | E::TooLarge { .. } => Class::InvalidInput,
            E::NoSpace { .. } | E::RangesExhausted { .. } => Class::Exhausted,
            E::Corrupt { .. } | E::DigestMismatch { .. } | E::NewerLayout { .. } => Class::Corrupt,
            E::Locked { .. } => Class::Unavailable,
            E::Io { .. } | E::Database(_) => Class::Kernel,
        };
        let full = error.is_no_space();
        let error = Self::new(class, error.to_string());
        if full {
            error.with_hint("free space there; `capsa system df` shows what capsa uses")
        } else {
            error
        }
    }
}

impl From<capsa_sys::Error> for Error {
    fn from(error: capsa_sys::Error) -> Self {
        let full = matches!(error.errno, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT);
        Self::new(if full { Class::Exhausted } else { Class::Kernel }, error.to_string())
    }
}

impl From<capsa_runtime::Error> for Error {
    fn from(error: capsa_runtime::Error) -> Self {
        match error {
            capsa_runtime::Error::Kernel(error) => error.into(),
            capsa_runtime::Error::Invalid { .. } => Self::invalid(error.to_string()),
            other => Self::kernel(other.to_string()),
        }
    }
}
