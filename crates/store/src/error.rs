//! What can go wrong on disk, one variant per kind of answer a caller acts on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use capsa_oci::Digest;
use rusqlite::ErrorCode;

/// The result of every function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a name or id in an error stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Immutable bytes.
    Blob,
    /// An unpacked directory.
    Layer,
    /// An image id.
    Image,
    /// A name of an image.
    Tag,
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds this data root.
    #[error("data root {} is in use by {}", root.display(), holder(*pid))]
    Locked {
        /// The data root.
        root: PathBuf,
        /// The holder as it wrote itself down.
        pid: Option<u32>,
    },
    /// The data root was written by a later version of this program.
    #[error("data root {} has layout {found}, this program knows up to {known}", root.display())]
    NewerLayout {
        /// The data root.
        root: PathBuf,
        /// Its layout number.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The filesystem under the data root is full (or over its quota).
    #[error("no space left on the filesystem that holds {}", path.display())]
    NoSpace {
        /// What could not be written.
        path: PathBuf,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(rusqlite::Error),
    /// Data on disk fails its check.
    #[error("{object} is corrupt: {detail}")]
    Corrupt {
        /// A path, a digest or a row.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Bytes that were to have another digest.
    #[error("digest mismatch: want {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// A blob larger than the caller takes into memory.
    #[error("blob {digest} has {size} bytes, more than the limit of {max}")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        max: u64,
    },
    /// There is no such thing.
    #[error("no such {kind}: {key}")]
    Missing {
        /// What was looked for.
        kind: Kind,
        /// Its name or id.
        key: String,
    },
    /// The name or id is taken.
    #[error("{kind} {name:?} already exists (id {by})")]
    NameTaken {
        /// What kind of name.
        kind: Kind,
        /// The name.
        name: String,
        /// Id of the one that has it.
        by: String,
    },
    /// Others still refer to it.
    #[error("{kind} {key} is in use by {}", by.join(", "))]
    InUse {
        /// What was to be removed.
        kind: Kind,
        /// Its name or id.
        key: String,
        /// Ids of those that use it.
        by: Vec<String>,
    },
    /// An id prefix with more than one match.
    #[error("id prefix {prefix:?} is ambiguous: {}", ids.join(", "))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// Some of the ids that have it, at least two.
        ids: Vec<String>,
    },
    /// The address has an owner on that network.
    #[error("address {address} of network {network} is taken by container {by}")]
    AddressTaken {
        /// The network's id.
        network: String,
        /// The address.
        address: String,
        /// Its owner's id.
        by: String,
    },
    /// Every id range of the pool has an owner.
    #[error("all {count} id ranges from {base} on are taken")]
    RangesExhausted {
        /// First id of the pool.
        base: u32,
        /// Ranges in the pool.
        count: u32,
    },
    /// A name that can't be a file name here.
    #[error("invalid {kind} name {name:?}")]
    BadName {
        /// What was to be named.
        kind: Kind,
        /// The name.
        name: String,
    },
}

impl Error {
    /// Whether the disk is full, so that freeing space and trying again helps.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned() }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    pub(crate) fn missing(kind: Kind, key: impl fmt::Display) -> Self {
        Self::Missing { kind, key: key.to_string() }
    }

    /// A full disk is told by the file that could not grow, not in SQLite's words.
    pub(crate) fn at(self, database: &Path) -> Self {
        match self {
            Self::Database(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Self::NoSpace { path: database.to_owned() }
            }
            other => other,
        }
    }

    /// Whether a uniqueness constraint refused the statement.
    pub(crate) fn is_unique(&self) -> bool {
        use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
        let Self::Database(rusqlite::Error::SqliteFailure(e, _)) = self else { return false };
        matches!(e.extended_code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE)
    }

    /// Whether a foreign key refused the statement.
    pub(crate) fn is_foreign_key(&self) -> bool {
        use rusqlite::ffi::{SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_TRIGGER};
        let Self::Database(rusqlite::Error::SqliteFailure(e, _)) = self else { return false };
        // A RESTRICT action reports itself as a trigger.
        matches!(e.extended_code, SQLITE_CONSTRAINT_FOREIGNKEY | SQLITE_CONSTRAINT_TRIGGER)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database(source)
    }
}

impl From<capsa_sys::Error> for Error {
    fn from(error: capsa_sys::Error) -> Self {
        Self::io(error.call, Path::new(&error.object), error.errno.into())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Image => "image",
            Self::Tag => "tag",
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
        })
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another daemon (process {pid})"),
        None => "another daemon".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_error_names_the_root_and_its_holder() {
        let error = Error::Locked { root: "/var/lib/x".into(), pid: Some(7) };
        assert_eq!(
            error.to_string(),
            "data root /var/lib/x is in use by another daemon (process 7)"
        );
    }

    #[test]
    fn a_full_disk_is_its_own_error_wherever_it_shows() {
        let kernel = capsa_sys::Error::new("write", "/x", rustix::io::Errno::NOSPC);
        assert!(Error::from(kernel).is_no_space());
        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(13), None);
        assert!(Error::from(full).at(Path::new("/db")).is_no_space());
    }
}
