//! What can go wrong with a registry. One shape for all: where, about what, in which
//! step, what it answered, and a class that says who has to act.

use std::fmt;
use std::io;

use capsa_oci::Digest;

/// Bytes of a registry's own text that are passed on.
const TEXT_MAX: usize = 300;

/// A request to a registry that did not do what was wanted.
#[derive(Clone, Debug)]
pub struct RegistryError {
    /// The host that was asked, with its port.
    pub host: String,
    /// The repository there, empty when it is about the registry.
    pub repository: String,
    /// What was being done.
    pub step: Step,
    /// Who has to act.
    pub failure: Failure,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The registry's own code, such as `MANIFEST_UNKNOWN`.
    pub code: Option<String>,
    /// Why, in the registry's words or ours.
    pub message: String,
    /// The same will happen the next time.
    pub(super) lasting: bool,
}

/// Who has to act after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such repository, tag or blob.
    NotFound,
    /// It wants a login, or refused the one it got.
    Unauthorized,
    /// It knows who asks, and forbids it.
    Denied,
    /// Too many requests, and it still says so after waiting.
    RateLimited,
    /// No answer: name, route, TLS, or time.
    Unreachable,
    /// It answered that it can't at the moment.
    Unavailable,
    /// What it sent is not what it should be.
    Invalid,
    /// The request itself was not accepted.
    Refused,
    /// The caller gave up.
    Cancelled,
}

/// What was being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finding out whether and how it answers.
    Connect,
    /// Getting a token.
    Authorize,
    /// Logging in.
    Login,
    /// Reading the manifest of a tag or digest.
    Manifest(String),
    /// Reading a blob.
    Blob(Digest),
    /// Listing tags.
    Tags,
    /// Sending a blob.
    Upload(Digest),
    /// Sending the manifest of a tag or digest.
    PutManifest(String),
}

impl RegistryError {
    /// A failure without an answer.
    pub fn new(
        host: impl Into<String>,
        repository: impl Into<String>,
        step: Step,
        failure: Failure,
        message: impl Into<String>,
    ) -> Self {
        Self {
            host: host.into(),
            repository: repository.into(),
            step,
            failure,
            status: None,
            code: None,
            message: message.into(),
            lasting: false,
        }
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        self.failure.is_passing() && !self.lasting
    }
}

impl Failure {
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unreachable | Self::Unavailable)
    }

    /// What a status means.
    pub(super) fn of(status: u16) -> Self {
        match status {
            404 | 410 => Self::NotFound,
            401 => Self::Unauthorized,
            403 | 451 => Self::Denied,
            429 => Self::RateLimited,
            408 | 500 | 502..=504 | 506..=599 => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        if !self.repository.is_empty() {
            write!(f, " of {}", self.repository)?;
        }
        write!(f, " at {}: ", self.host)?;
        if let Some(status) = self.status {
            write!(f, "HTTP {status}: ")?;
        }
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for RegistryError {}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("reaching the registry"),
            Self::Authorize => f.write_str("getting a token"),
            Self::Login => f.write_str("login"),
            Self::Manifest(what) => write!(f, "reading manifest {what}"),
            Self::Blob(digest) => write!(f, "reading blob {digest}"),
            Self::Tags => f.write_str("listing the tags"),
            Self::Upload(digest) => write!(f, "sending blob {digest}"),
            Self::PutManifest(what) => write!(f, "sending manifest {what}"),
        }
    }
}

/// A stranger's text on one line of bounded length.
pub(super) fn clean(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// Why there was no answer, in words for the user.
pub(super) fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer in time ({error})"),
        ureq::Error::HostNotFound => "the name has no address".to_owned(),
        ureq::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed".to_owned()
        }
        ureq::Error::Io(source) => clean(&source.to_string()),
        other => clean(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_step_repository_host_status_and_the_registrys_words() {
        let step = Step::Manifest("v1".into());
        let message = clean("manifest\r\nunknown");
        let mut error =
            RegistryError::new("r.example:5000", "a/b", step, Failure::of(404), message);
        (error.status, error.code) = (Some(404), Some("MANIFEST_UNKNOWN".into()));
        assert_eq!(
            error.to_string(),
            "reading manifest v1 of a/b at r.example:5000: HTTP 404: \
             MANIFEST_UNKNOWN: manifest  unknown"
        );
        assert_eq!(error.failure, Failure::NotFound);
    }

    #[test]
    fn a_strangers_text_is_cut_between_characters() {
        assert_eq!(clean(&"ä".repeat(400)).chars().filter(|c| *c == 'ä').count(), TEXT_MAX / 2);
    }
}
