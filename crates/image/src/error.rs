//! What can go wrong with an archive or a layer: one variant per step.

use std::io;
use std::path::PathBuf;

use capsa_oci::Digest;

use crate::Compression;

/// The result of every function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An archive or layer that could not be read, applied or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be read: the stream broke, or its compression is corrupt.
    #[error("reading the archive: {0}")]
    Read(#[source] io::Error),
    /// The bytes could not be written.
    #[error("writing the archive: {0}")]
    Write(#[source] io::Error),
    /// A compression that is known but not built in.
    #[error("{0} compression is not supported: recompress the archive with gzip or zstd")]
    Compression(Compression),
    /// The tar format is violated.
    #[error("invalid tar archive at byte {offset}: {what}")]
    Format {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A limit against bombs.
    #[error("archive refused: more than {limit} {what}")]
    Limit {
        /// What is limited, in the plural.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A name that leads out of the tree.
    #[error("archive refused: {path:?} leads out of the file system tree")]
    Escape {
        /// As in the archive.
        path: String,
    },
    /// A whiteout that names nothing.
    #[error("{path:?} is not a valid whiteout")]
    Whiteout {
        /// As in the archive.
        path: String,
    },
    /// A change to the tree failed.
    #[error("unpacking {path:?}: {source}")]
    Apply {
        /// The entry.
        path: PathBuf,
        /// What the kernel said.
        source: capsa_sys::Error,
    },
    /// A directory would replace something else or the reverse, and that was forbidden.
    #[error("cannot overwrite {} {path:?} with {}", kind_word(*.existing_dir), kind_word(!.existing_dir))]
    Overwrite {
        /// The entry.
        path: PathBuf,
        /// What is there is a directory.
        existing_dir: bool,
    },
    /// The tree could not be read.
    #[error("reading {path:?}: {source}")]
    Tree {
        /// Below the root.
        path: PathBuf,
        /// What the kernel said.
        source: capsa_sys::Error,
    },
    /// An overlay directory that was moved by reference; such mounts are not made here.
    #[error("{path:?} is an overlay redirect, which has no form in a layer")]
    Redirect {
        /// Below the root.
        path: PathBuf,
    },
    /// Content is not what its name says.
    #[error("{what} does not match its digest: want {expected}, got {actual}")]
    Digest {
        /// What was hashed.
        what: String,
        /// As promised.
        expected: Digest,
        /// As found.
        actual: Digest,
    },
    /// The archive holds no images in a known form.
    #[error("invalid archive: {0}")]
    Archive(String),
    /// A file of the archive is missing.
    #[error("invalid archive: {0} is missing")]
    Missing(String),
    /// A JSON file of the archive does not parse.
    #[error("invalid archive: {file}: {source}")]
    Json {
        /// Name in the archive or digest.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No image for this machine.
    #[error("no image for {wanted}; there is {found}")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] Box<crate::registry::RegistryError>),
    /// The other end (a store) failed.
    #[error("{attempt}: {source}")]
    End {
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps a failure of the other end of a copy.
    pub fn end(
        attempt: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::End { attempt: attempt.into(), source: source.into() }
    }

    /// What `io::Read` carried: our own error if it was one.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(other) => Self::Read(other),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

fn kind_word(is_dir: bool) -> &'static str {
    if is_dir { "directory" } else { "non-directory" }
}
