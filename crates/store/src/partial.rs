//! Unfinished blobs that outlive their writer: what was fetched once is not fetched
//! again after a broken connection or the daemon's death.
//!
//! A partial file lies in `ingest/` under the digest that it is to have. Whoever goes
//! on with it holds its lock, and reads it first: a running hash can't be kept, and the
//! bytes have to be unpacked anyway. They are believed only at the commit, like all
//! others. A sweep takes those that nobody went on with for a day, or at once when the
//! disk is nearly full.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use capsa_oci::Digest;

use crate::blob::Ingest;
use crate::{Error, Result, Store, fault, layout};

const PREFIX: &str = "sha256-";
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// With less free than this part of the disk nothing is kept on suspicion.
const FREE_MIN_PERCENT: u64 = 5;
/// Tries to open the file: between open and lock a sweep may take it.
const TRIES: u32 = 8;

impl Store {
    /// Begins the blob `digest`, or goes on with what is there of it: at most `max`
    /// bytes, else it can't be its start. [`Ingest::read_kept`] gives those bytes, all
    /// of which are to be read before the first write. If another goes on with it at
    /// the moment, this one begins by itself.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn resume(&self, digest: &Digest, max: u64) -> Result<Ingest> {
        let path = self.inner.layout.ingests().join(format!("{PREFIX}{}", digest.hex()));
        for _ in 0..TRIES {
            fault::point(&path)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|e| Error::io("create", &path, e))?;
            if file.try_lock().is_err() {
                break;
            }
            let stat = file.metadata().map_err(|e| Error::io("stat", &path, e))?;
            if stat.nlink() == 0 {
                continue;
            }
            let mut kept = stat.len();
            if kept > max {
                file.set_len(0).map_err(|e| Error::io("truncate", &path, e))?;
                kept = 0;
            }
            return Ok(Ingest::of(self.clone(), path, file, kept));
        }
        self.ingest()
    }

    /// Removes partial blobs that are too old, and all when space is short.
    ///
    /// # Errors
    /// When the directory can't be read or a file not be removed.
    pub(crate) fn sweep_partials(&self) -> Result<()> {
        let dir = self.inner.layout.ingests();
        let mut age_max = None;
        for name in layout::names_in(&dir)? {
            if is_partial(Path::new(&name)) {
                let age_max = *age_max.get_or_insert_with(|| age_max_at(&dir));
                remove_if_old(&dir.join(name), age_max)?;
            }
        }
        Ok(())
    }
}

/// Whether a file in `ingest/` is one of these.
pub(crate) fn is_partial(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX))
}

fn age_max_at(dir: &Path) -> Duration {
    let short = rustix::fs::statvfs(dir)
        .is_ok_and(|fs| fs.f_bavail.saturating_mul(100) < fs.f_blocks * FREE_MIN_PERCENT);
    if short { Duration::ZERO } else { AGE_MAX }
}

/// Under its lock, so that nobody is going on with it.
fn remove_if_old(path: &Path, age_max: Duration) -> Result<()> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Error::io("open", path, e))?,
    };
    let changed = file.metadata().and_then(|stat| stat.modified());
    let changed = changed.map_err(|e| Error::io("stat", path, e))?;
    // One from the future is as suspicious as one from long ago.
    let young = SystemTime::now().duration_since(changed).is_ok_and(|age| age < age_max);
    if young || file.try_lock().is_err() {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
