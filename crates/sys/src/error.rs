//! The one error of this crate: which call, on what, and what the kernel said.

use std::fmt;

use rustix::io::Errno;

/// A kernel call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The system call or operation.
    pub call: &'static str,
    /// What it was applied to: a path, an interface, a message.
    pub object: String,
    /// The kernel's answer.
    pub errno: Errno,
}

/// The result of every function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Names the call, its object and the kernel's answer.
    pub fn new(call: &'static str, object: impl fmt::Display, errno: Errno) -> Self {
        Self { call, object: object.to_string(), errno }
    }

    /// The same from an `io::Error`; an error without an errno becomes `EIO`.
    pub fn from_io(call: &'static str, object: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(call, object, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.object, self.errno)
    }
}

impl std::error::Error for Error {}
