//! Blobs: immutable bytes named by their digest.
//!
//! A blob is there when its row is. The order is: write aside while hashing, check
//! the digest, flush, then under the lock rename into place and insert the row. A
//! crash between the last two leaves a file nobody knows, removed at the next open.
//! A blob committed with [`Durability::Process`] is flushed by the image that first
//! refers to it ([`Store::put_image`]) and forgotten if the machine goes down before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use capsa_oci::{Digest, Hasher};
use capsa_sys::atomic::{self, Durability};
use rusqlite::OptionalExtension;

use crate::error::Kind;
use crate::{Error, Result, Store, fault, partial, trash};

/// The disk gets its work in pieces of this size while a blob arrives, and not all of it
/// when the blob has to be flushed.
const WRITEBACK: u64 = 8 << 20;

/// An unfinished blob: written to, then committed; removed when dropped before that,
/// unless it was told to stay ([`Ingest::keep`]).
pub struct Ingest {
    store: Store,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// Bytes hashed, from the start.
    size: u64,
    /// Bytes that were there already, see [`Store::resume`].
    kept: u64,
    /// Bytes that the kernel was asked to write out.
    begun: u64,
    stays: bool,
}

impl Store {
    /// Begins a blob.
    ///
    /// # Errors
    /// When its file can't be made.
    pub fn ingest(&self) -> Result<Ingest> {
        let path = self.inner.layout.ingests().join(trash::unique());
        fault::point(&path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        Ok(Ingest::of(self.clone(), path, file, 0))
    }

    /// The blob, open for reading; its bytes are not checked.
    ///
    /// # Errors
    /// When the database or the file fails.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        if self.blob_size(digest)?.is_none() {
            return Ok(None);
        }
        let path = self.inner.layout.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", &path, e)),
        }
    }

    /// The blob's size in bytes.
    ///
    /// # Errors
    /// When the database fails.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.db.read(|db| {
            db.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?
                .query_row([digest.as_str()], |row| row.get(0))
                .optional()
                .map_err(Error::from)
        })
    }

    /// Whether the blob is there, row and file.
    ///
    /// # Errors
    /// When the database fails.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size(digest)?.is_some() && self.inner.layout.blob(digest).exists())
    }

    /// The blob's bytes, at most `max`, checked against the digest: for manifests and
    /// configs.
    ///
    /// # Errors
    /// `Missing`, `TooLarge`, `Corrupt`, or a failed read.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let Some(file) = self.blob(digest)? else {
            return Err(Error::missing(Kind::Blob, digest));
        };
        let path = self.inner.layout.blob(digest);
        let size = file.metadata().map_err(|e| Error::io("stat", &path, e))?.len();
        if size > max {
            return Err(Error::TooLarge { digest: digest.clone(), size, max });
        }
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes).map_err(|e| Error::io("read", &path, e))?;
        let actual = Digest::sha256(&bytes);
        if actual != *digest {
            return Err(Error::Corrupt {
                object: path.display().to_string(),
                detail: format!("its bytes hash to {actual}"),
            });
        }
        Ok(bytes)
    }

    /// Removes a blob that no image refers to; false if there is none.
    ///
    /// # Errors
    /// `InUse` with the images, or a failure.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        let mut writer = self.inner.db.lock();
        let removed = writer.write(Durability::Durable, |db| {
            let by = images_with_blob(db, digest)?;
            if !by.is_empty() {
                return Err(Error::InUse { kind: Kind::Blob, key: digest.to_string(), by });
            }
            Ok(db.execute("DELETE FROM blobs WHERE digest = ?1", [digest.as_str()])? > 0)
        })?;
        self.inner.trash.take(&self.inner.layout.blob(digest))?;
        Ok(removed)
    }

    /// Writes `bytes` as a blob: for the manifests and configs made here.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn write_blob(&self, bytes: &[u8], durability: Durability) -> Result<Digest> {
        let mut ingest = self.ingest()?;
        let path = ingest.path.clone();
        ingest.write_all(bytes).map_err(|e| Error::io("write", &path, e))?;
        Ok(ingest.commit_as(None, durability)?.0)
    }
}

impl Ingest {
    /// Of a file that has `kept` bytes already, at its start.
    pub(crate) fn of(store: Store, path: PathBuf, file: File, kept: u64) -> Self {
        Self { store, path, file, hasher: Hasher::new(), size: 0, kept, begun: 0, stays: false }
    }

    /// What is written, open for reading from the start while it grows.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))
    }

    /// Bytes read from what was kept, and written, so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that were there when this began.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Reads on in what was kept; 0 at its end.
    ///
    /// # Errors
    /// When the file can't be read or has become shorter.
    pub fn read_kept(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.kept.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }

    /// Leaves the bytes for [`Store::resume`], if they came from there.
    pub fn keep(mut self) {
        self.stays = partial::is_partial(&self.path);
    }

    /// Checks the digest and makes the blob visible and durable. One that is there
    /// already is kept.
    ///
    /// # Errors
    /// `DigestMismatch`, or a failure; the bytes are gone then.
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.commit_as(expected, Durability::Durable)
    }

    /// [`Ingest::commit`] with a choice: [`Durability::Process`] leaves the flush to the
    /// image that will refer to the blob, which pays one for all of its blobs and layers.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub fn commit_as(
        mut self,
        expected: Option<&Digest>,
        durability: Durability,
    ) -> Result<(Digest, u64)> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(Error::DigestMismatch { expected: expected.clone(), actual });
        }
        fault::point(&self.path)?;
        if durability == Durability::Durable {
            self.file.sync_all().map_err(|e| Error::io("fsync", &self.path, e))?;
        }
        fault::point(&self.path)?;
        self.put_in_place(&actual, durability)?;
        Ok((actual, self.size))
    }

    fn put_in_place(&self, digest: &Digest, durability: Durability) -> Result<()> {
        let inner = &self.store.inner;
        let place = inner.layout.blob(digest);
        let unsynced = (durability == Durability::Process).then_some(inner.boot.as_str());
        let mut writer = inner.db.lock();
        if writer.read(|db| keeps(db, digest, durability))? && exists(&place) {
            return Ok(());
        }
        // What is there has no row or is not flushed: the same bytes may replace it.
        atomic::publish(&self.path, &place, durability)?;
        fault::point(&place)?;
        writer.write(durability, |db| {
            db.prepare_cached(
                "INSERT INTO blobs (digest, size, unsynced) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO UPDATE SET size = ?2, unsynced = ?3",
            )?
            .execute((digest.as_str(), self.size, unsynced))?;
            Ok(())
        })
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size < self.kept {
            let text = "an unfinished blob is written to before it was read";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        if self.size - self.begun >= WRITEBACK {
            atomic::begin_writeback(&self.file, self.begun, self.size - self.begun);
            self.begun = self.size;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After a commit the name is gone and this does nothing.
        if !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn images_with_blob(db: &rusqlite::Connection, digest: &Digest) -> Result<Vec<String>> {
    let mut query = db.prepare_cached("SELECT image FROM image_blobs WHERE digest = ?1")?;
    let images = query.query_map([digest.as_str()], |row| row.get(0))?;
    Ok(images.collect::<Result<_, _>>()?)
}

/// Whether the blob is there already, and as durable as is asked for.
fn keeps(db: &rusqlite::Connection, digest: &Digest, durability: Durability) -> Result<bool> {
    let any = durability == Durability::Process;
    db.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1 AND (?2 OR unsynced IS NULL)")?
        .exists((digest.as_str(), any))
        .map_err(Error::from)
}

/// Whether something has this name, were it a dangling link.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
