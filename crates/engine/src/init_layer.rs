//! The layer between every image and its containers: the places that the runtime
//! mounts over.
//!
//! With it the runtime finds its mount points and makes none in the container's
//! writable top, so that `diff` and `commit` show only what the container did. It is
//! an ordinary layer of the store, held by a lease as long as the engine runs.

use std::fs::{self, File};
use std::path::PathBuf;

use capsa_oci::Digest;
use capsa_store::{Lease, Store};

use crate::{Error, Result};

/// Raised when the content changes.
const NAME: &[u8] = b"capsa init layer 1";
const DIRS: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// The layer, as long as this lives.
pub(crate) struct InitLayer {
    /// Its directory.
    pub path: PathBuf,
    _lease: Lease,
}

impl InitLayer {
    /// Finds or makes it.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        let chain_id = Digest::sha256(NAME);
        let mut lease = store.lease();
        if !lease.hold_layer(&chain_id)? {
            let ingest = lease.begin_layer(&chain_id)?;
            let failed = |error| Error::kernel(format!("init layer: {error}"));
            for dir in DIRS {
                fs::create_dir(ingest.path().join(dir)).map_err(failed)?;
            }
            for file in FILES {
                File::create(ingest.path().join(file)).map_err(failed)?;
            }
            ingest.commit(&chain_id, 0)?;
        }
        let path = store.layer(&chain_id)?;
        let path = path.ok_or_else(|| Error::kernel("the init layer vanished"))?;
        Ok(Self { path, _lease: lease })
    }
}

impl std::fmt::Debug for InitLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InitLayer").field(&self.path).finish()
    }
}
