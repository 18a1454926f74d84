//! How a verb fails: an exit code and the text for standard error.
//!
//! Codes: 125 for a wrong flag and for `run` before the program started, 126 and
//! 127 when the program can't be run, 1 for everything else.

use std::io;

use capsa_api::{ClientError, Version};

/// A failed verb.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: u8,
    /// Printed on standard error when not empty.
    pub(crate) text: String,
    /// What could be changed for another try of the whole verb.
    pub(crate) remedy: Option<Remedy>,
}

/// Why another try may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nobody listens: start a daemon.
    StartDaemon,
    /// The daemon is older than we are: speak this version.
    Speak(Version),
}

/// What a verb's steps return.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with a code and a text.
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), remedy: None }
    }

    /// A failure with code 1.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::new(1, text)
    }

    /// As `run` and `create` report: `capsa: `, the text, and where the help is.
    pub(crate) fn of_run(mut self, name: &str, code: u8) -> Self {
        self.code = code;
        if !self.text.is_empty() {
            self.text =
                format!("capsa: {}\n\nRun 'capsa {name} --help' for more information", self.text);
        }
        self
    }

    /// A file operation, as Go words it: `open /x: no such file or directory`.
    pub(crate) fn io(call: &str, path: &str, error: &io::Error) -> Self {
        Self::said(format!("{call} {path}: {}", errno_text(error)))
    }
}

/// The system's own words for an error, in lower case as Docker's users know them.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Api { message, .. } => {
                let mut failure = Self::said(format!("Error response from daemon: {message}"));
                failure.remedy = older_version(message).map(Remedy::Speak);
                failure
            }
            ClientError::Connect { endpoint, source } => {
                let mut failure = Self::said(format!(
                    "Cannot connect to the capsa daemon at {endpoint}. Is the capsa daemon running? ({})",
                    errno_text(source)
                ));
                let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
                failure.remedy = absent.contains(&source.kind()).then_some(Remedy::StartDaemon);
                failure
            }
            _ => Self::said(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::said(errno_text(&error))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::said(text)
    }
}

/// `… is too new. Maximum supported API version is 1.50` names what an older daemon speaks.
fn older_version(message: &str) -> Option<Version> {
    let (_, version) = message.split_once("Maximum supported API version is ")?;
    version.trim().trim_end_matches('.').parse().ok()
}
