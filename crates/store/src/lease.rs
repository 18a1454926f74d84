//! Leases: what is in flight is not garbage.
//!
//! A lease names blobs and layers that no image refers to yet (a pull, a load, a
//! build). [`crate::Store::sweep`] takes nothing that is held. Leases live in memory:
//! they protect the work of this daemon, and only one daemon has the data root. What a
//! dead daemon had in flight stays until the next sweep, so a pull that is tried
//! again after a crash finds its finished layers.

use capsa_oci::Digest;

use crate::{Ingest, LayerIngest, Result, Store};

/// Protects what it holds from [`crate::Store::sweep`] until it is dropped.
pub struct Lease {
    store: Store,
    held: Vec<LeaseKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseKey {
    Blob(Digest),
    Layer(Digest),
}

impl Store {
    /// An empty lease.
    pub fn lease(&self) -> Lease {
        Lease { store: self.clone(), held: Vec::new() }
    }
}

impl Lease {
    /// Holds a blob, there already or still to come; tells whether it is there. Once
    /// this says true the blob stays.
    ///
    /// # Errors
    /// When the database fails.
    pub fn hold_blob(&mut self, digest: &Digest) -> Result<bool> {
        self.hold(LeaseKey::Blob(digest.clone()));
        self.store.has_blob(digest)
    }

    /// Holds a layer, there already or still to come; tells whether it is there. Once
    /// this says true the layer stays.
    ///
    /// # Errors
    /// When the database fails.
    pub fn hold_layer(&mut self, chain_id: &Digest) -> Result<bool> {
        self.hold(LeaseKey::Layer(chain_id.clone()));
        Ok(self.store.layer(chain_id)?.is_some())
    }

    /// [`Store::ingest`] for a blob of this digest, held from now on.
    ///
    /// # Errors
    /// As [`Store::ingest`].
    pub fn ingest(&mut self, digest: &Digest) -> Result<Ingest> {
        self.hold(LeaseKey::Blob(digest.clone()));
        self.store.ingest()
    }

    /// [`Store::resume`] for a blob of this digest, held from now on.
    ///
    /// # Errors
    /// As [`Store::resume`].
    pub fn resume(&mut self, digest: &Digest, max: u64) -> Result<Ingest> {
        self.hold(LeaseKey::Blob(digest.clone()));
        self.store.resume(digest, max)
    }

    /// [`Store::begin_layer`] for a layer of this chain id, held from now on.
    ///
    /// # Errors
    /// As [`Store::begin_layer`].
    pub fn begin_layer(&mut self, chain_id: &Digest) -> Result<LayerIngest> {
        self.hold(LeaseKey::Layer(chain_id.clone()));
        self.store.begin_layer()
    }

    fn hold(&mut self, key: LeaseKey) {
        *self.store.inner.db.lock().leases.entry(key.clone()).or_default() += 1;
        self.held.push(key);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut writer = self.store.inner.db.lock();
        for key in self.held.drain(..) {
            if let Some(count) = writer.leases.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    writer.leases.remove(&key);
                }
            }
        }
    }
}
