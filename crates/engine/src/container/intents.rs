//! The volumes that a create is about to make, noted before it makes them.
//!
//! A volume without a name belongs to its container, but exists before the
//! container's record does. The note lets recovery remove the volumes of a create
//! that never came to its record; the run directory it lies in goes with the create.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const FILE: &str = "volumes";

/// The notes of one create.
#[derive(Debug)]
pub(crate) struct Intents {
    dir: PathBuf,
}

impl Intents {
    /// For the create whose run directory is `dir`; it is made with the first note.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Notes a volume that is about to be made.
    pub(super) fn note(&self, volume: &str) -> Result<()> {
        let failed = |error| Error::kernel(format!("{}: {error}", self.dir.display()));
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let path = self.dir.join(FILE);
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.write_all(format!("{volume}\n").as_bytes()).map_err(failed)
    }

    /// The volumes that were noted.
    pub(super) fn read(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(FILE)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The create is over: forgets the notes.
    pub(super) fn forget(&self) {
        remove(&self.dir);
    }
}

/// Removes a run directory that may not be there.
fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "run directory left behind");
    }
}
