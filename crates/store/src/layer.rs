//! Layers: immutable unpacked directories named by chain id.
//!
//! A layer is there when its row is. It is unpacked in `ingest/` and renamed into
//! place under the lock just before its row is inserted. Flushing a tree of a
//! thousand files is one syncfs(2), so it is done once for an image, by
//! [`Store::put_image`], not once a layer; until then the row carries the boot it was
//! written in, and a layer of another boot that was never flushed is dropped at open.

use std::fs;
use std::path::{Path, PathBuf};

use capsa_oci::Digest;
use capsa_sys::atomic::{self, Durability};
use rusqlite::OptionalExtension;

use crate::{Error, Result, Store, blob, fault, layout, trash};

/// A layer being unpacked; removed in the background when dropped uncommitted.
pub struct LayerIngest {
    store: Store,
    path: PathBuf,
}

impl Store {
    /// The directory that holds the layer's tree.
    ///
    /// # Errors
    /// When the database fails.
    pub fn layer(&self, chain_id: &Digest) -> Result<Option<PathBuf>> {
        let path = self.inner.layout.layer(chain_id);
        Ok((self.layer_size(chain_id)?.is_some() && blob::exists(&path)).then_some(path))
    }

    /// The layer's size in bytes, as given at its commit.
    ///
    /// # Errors
    /// When the database fails.
    pub fn layer_size(&self, chain_id: &Digest) -> Result<Option<u64>> {
        self.inner.db.read(|db| {
            db.prepare_cached("SELECT size FROM layers WHERE chain_id = ?1")?
                .query_row([chain_id.as_str()], |row| row.get(0))
                .optional()
                .map_err(Error::from)
        })
    }

    /// Begins a layer: an empty directory, mode 0755, to unpack into. It gets its name
    /// when it is committed.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn begin_layer(&self) -> Result<LayerIngest> {
        let path = self.inner.layout.ingests().join(trash::unique());
        fault::point(&path)?;
        layout::make_dir_mode(&path, 0o755)?;
        Ok(LayerIngest { store: self.clone(), path })
    }
}

impl LayerIngest {
    /// Where to unpack.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the layer visible as `chain_id`, `size` bytes as unpacked. If another made the same
    /// layer meanwhile, theirs stays and this one goes.
    ///
    /// # Errors
    /// When the rename or the database fails.
    pub fn commit(self, chain_id: &Digest, size: u64) -> Result<PathBuf> {
        let inner = &self.store.inner;
        let place = inner.layout.layer(chain_id);
        let mut writer = inner.db.lock();
        let known: bool = writer.read(|db| {
            db.prepare_cached("SELECT 1 FROM layers WHERE chain_id = ?1")?
                .exists([chain_id.as_str()])
                .map_err(Error::from)
        })?;
        if known && blob::exists(&place) {
            return Ok(place);
        }
        // A directory without a row is what a failed commit left.
        inner.trash.take(&place)?;
        fault::point(&place)?;
        atomic::publish(&self.path, &place, Durability::Process)?;
        fault::point(&place)?;
        writer.write(Durability::Process, |db| {
            db.prepare_cached(
                "INSERT INTO layers (chain_id, size, unsynced) VALUES (?1, ?2, ?3)
                 ON CONFLICT (chain_id) DO UPDATE SET size = ?2, unsynced = ?3",
            )?
            .execute((chain_id.as_str(), size, &inner.boot))?;
            Ok(())
        })?;
        Ok(place)
    }
}

impl Drop for LayerIngest {
    fn drop(&mut self) {
        // After a commit the name is gone.
        if fs::symlink_metadata(&self.path).is_ok() {
            self.store.inner.trash.delete(self.path.clone());
        }
    }
}
