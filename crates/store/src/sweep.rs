//! What nobody refers to, how much it is, and taking it away: after an image is
//! removed, and at open after a crash.

use std::collections::HashSet;
use std::path::Path;

use capsa_oci::Digest;
use capsa_sys::atomic::Durability;
use rusqlite::Connection;

use crate::db::Writer;
use crate::image::digest_at;
use crate::lease::LeaseKey;
use crate::{Result, Store, fault, layout};

/// What a sweep took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs nobody referred to.
    pub blobs: Vec<Digest>,
    /// Layers nobody referred to.
    pub layers: Vec<Digest>,
    /// Bytes of both, as recorded; on disk they go in the background.
    pub bytes: u64,
}

/// Bytes of the immutable part; for the rest see [`Store::rootfs_size`] and
/// [`Store::volume_size`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Blobs, bytes.
    pub blob_bytes: u64,
    /// Blobs, number.
    pub blobs: u64,
    /// Layers, each once, bytes.
    pub layer_bytes: u64,
    /// Layers, number.
    pub layers: u64,
    /// Bytes of both that a sweep would free, leases aside.
    pub reclaimable_bytes: u64,
}

/// The parameter is a JSON array of image ids that are taken for gone.
const LOOSE_BLOBS: &str = "SELECT digest, size FROM blobs
     WHERE NOT EXISTS (SELECT 1 FROM image_blobs i WHERE i.digest = blobs.digest
                       AND i.image NOT IN (SELECT value FROM json_each(?1)))";
const LOOSE_LAYERS: &str = "SELECT chain_id, size FROM layers
     WHERE NOT EXISTS (SELECT 1 FROM image_layers i WHERE i.chain_id = layers.chain_id
                       AND i.image NOT IN (SELECT value FROM json_each(?1)))";

impl Store {
    /// Removes every blob and layer that no image and no lease holds, and unfinished
    /// blobs that nobody went on with. Durable.
    ///
    /// # Errors
    /// When the database or a rename fails; what is then left goes at the next open.
    pub fn sweep(&self) -> Result<Swept> {
        self.sweep_partials()?;
        let inner = &self.inner;
        let mut writer = inner.db.lock();
        let Loose { blobs, layers } = sweepable(&writer, &[])?;
        if blobs.is_empty() && layers.is_empty() {
            return Ok(Swept::default());
        }
        writer.write(Durability::Durable, |db| {
            for (digest, _) in &blobs {
                db.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                    .execute([digest.as_str()])?;
            }
            for (chain_id, _) in &layers {
                db.prepare_cached("DELETE FROM layers WHERE chain_id = ?1")?
                    .execute([chain_id.as_str()])?;
            }
            Ok(())
        })?;
        // Still under the lock: nobody may commit the same name between row and file.
        for (digest, _) in &blobs {
            fault::point(inner.layout.root())?;
            inner.trash.take(&inner.layout.blob(digest))?;
        }
        for (chain_id, _) in &layers {
            fault::point(inner.layout.root())?;
            inner.trash.take(&inner.layout.layer(chain_id))?;
        }
        Ok(Loose { blobs, layers }.into())
    }

    /// What [`Self::sweep`] would take away now if the images `gone` were removed before.
    ///
    /// # Errors
    /// When the database fails.
    pub fn would_sweep(&self, gone: &[Digest]) -> Result<Swept> {
        Ok(sweepable(&self.inner.db.lock(), gone)?.into())
    }

    /// Bytes of all blobs and layers, shared ones once.
    ///
    /// # Errors
    /// When the database fails.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.inner.db.read(|db| {
            let total = |sql: &str| -> rusqlite::Result<(u64, u64)> {
                db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
            };
            let (blob_bytes, blobs) = total("SELECT coalesce(sum(size), 0), count(*) FROM blobs")?;
            let (layer_bytes, layers) =
                total("SELECT coalesce(sum(size), 0), count(*) FROM layers")?;
            let loose = [loose(db, LOOSE_BLOBS, &[])?, loose(db, LOOSE_LAYERS, &[])?].concat();
            let reclaimable_bytes = loose.iter().map(|(_, size)| size).sum();
            Ok(DiskUsage { blob_bytes, blobs, layer_bytes, layers, reclaimable_bytes })
        })
    }

    /// Every layer with its size in bytes and the number of images that have it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn layer_references(&self) -> Result<Vec<(Digest, u64, u64)>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT l.chain_id, l.size, count(DISTINCT i.image) FROM layers l
                 LEFT JOIN image_layers i USING (chain_id) GROUP BY l.chain_id",
            )?;
            let rows = query.query_map([], |r| Ok((digest_at(r, 0)?, r.get(1)?, r.get(2)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Makes disk and tables agree again after a crash or a power cut. Called once, by
    /// open, before anyone else can see the store.
    pub(crate) fn reconcile(&self) -> Result<()> {
        let layout = &self.inner.layout;
        self.drop_unsynced()?;
        self.match_up(&layout.blobs(), "blobs", "digest", LOOSE_BLOBS, |name| {
            format!("sha256:{name}")
        })?;
        self.match_up(&layout.layers(), "layers", "chain_id", LOOSE_LAYERS, |name| {
            format!("sha256:{name}")
        })?;
        // A container without a directory is the engine's to judge.
        let known = self.keys("SELECT id FROM containers")?;
        self.trash_unknown(&layout.containers(), &known, str::to_owned)?;
        self.drop_unborn_volumes()?;
        self.finish_volume_removals()
    }

    /// Blobs and layers written in another boot and never flushed may hold anything.
    fn drop_unsynced(&self) -> Result<()> {
        let boot = &self.inner.boot;
        self.write(Durability::Process, |db| {
            for sql in [
                "DELETE FROM blobs WHERE unsynced <> ?1 AND digest NOT IN
                     (SELECT digest FROM image_blobs)",
                "DELETE FROM layers WHERE unsynced <> ?1 AND chain_id NOT IN
                     (SELECT chain_id FROM image_layers)",
            ] {
                db.execute(sql, [boot])?;
            }
            Ok(())
        })
    }

    /// Files without a row go to the trash; loose rows without a file are deleted.
    fn match_up(
        &self,
        dir: &Path,
        table: &str,
        key: &str,
        loose_rows: &str,
        to_key: fn(&str) -> String,
    ) -> Result<()> {
        let known = self.keys(&format!("SELECT {key} FROM {table}"))?;
        let present = self.trash_unknown(dir, &known, to_key)?;
        let rows = self.inner.db.read(|db| loose(db, loose_rows, &[]))?;
        let gone: Vec<_> = rows.iter().filter(|(d, _)| !present.contains(d.as_str())).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.write(Durability::Process, |db| {
            for (digest, _) in gone {
                let sql = format!("DELETE FROM {table} WHERE {key} = ?1");
                db.execute(&sql, [digest.as_str()])?;
            }
            Ok(())
        })
    }

    fn trash_unknown(
        &self,
        dir: &Path,
        known: &HashSet<String>,
        to_key: fn(&str) -> String,
    ) -> Result<HashSet<String>> {
        let mut present = HashSet::new();
        for name in layout::names_in(dir)? {
            let key = to_key(&name);
            if known.contains(&key) {
                present.insert(key);
            } else {
                self.inner.trash.take(&dir.join(name))?;
            }
        }
        Ok(present)
    }

    /// The first column of a query, as a set.
    pub(crate) fn keys(&self, sql: &str) -> Result<HashSet<String>> {
        self.inner.db.read(|db| {
            let mut query = db.prepare(sql)?;
            let rows = query.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// Blobs and layers that may go, with their sizes.
struct Loose {
    blobs: Vec<(Digest, u64)>,
    layers: Vec<(Digest, u64)>,
}

impl From<Loose> for Swept {
    fn from(loose: Loose) -> Self {
        let bytes = loose.blobs.iter().chain(&loose.layers).map(|(_, size)| size).sum();
        let names = |rows: Vec<(Digest, u64)>| rows.into_iter().map(|(name, _)| name).collect();
        Self { blobs: names(loose.blobs), layers: names(loose.layers), bytes }
    }
}

/// What no image but those that are `gone`, and no lease holds.
fn sweepable(writer: &Writer, gone: &[Digest]) -> Result<Loose> {
    let mut blobs = writer.read(|db| loose(db, LOOSE_BLOBS, gone))?;
    let mut layers = writer.read(|db| loose(db, LOOSE_LAYERS, gone))?;
    blobs.retain(|(digest, _)| !writer.leases.contains_key(&LeaseKey::Blob(digest.clone())));
    layers.retain(|(chain, _)| !writer.leases.contains_key(&LeaseKey::Layer(chain.clone())));
    Ok(Loose { blobs, layers })
}

fn loose(db: &Connection, sql: &str, gone: &[Digest]) -> Result<Vec<(Digest, u64)>> {
    // Digests need no escaping.
    let gone: Vec<String> = gone.iter().map(|digest| format!("\"{digest}\"")).collect();
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([format!("[{}]", gone.join(","))], |row| {
        Ok((digest_at(row, 0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
