//! The store as the two ends of a copy, and as the spool of an archive being read:
//! the one place where moving images meets keeping them.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Mutex;

use capsa_image::archive::Spool;
use capsa_image::{
    Error as ImageError, Image, Layer, Limits, Result as ImageResult, Sink, Source, unpack_layer,
};
use capsa_oci::{Descriptor, Digest, Hasher};
use capsa_store::{Durability, ImageRow, Lease, Store};
use capsa_sys::root::RootDir;

use super::nanoseconds;
use super::record::Record;
use crate::Result;

/// Blobs and layers on their way into the store, held until this is dropped.
pub(super) struct Incoming {
    store: Store,
    limits: Limits,
    lease: Mutex<Lease>,
    /// Layers with the blobs that were once hashed to their diff ids.
    checked: HashSet<(Digest, Digest)>,
}

/// Images of the store, going out.
pub(super) struct Outgoing<'a> {
    pub(super) store: &'a Store,
    pub(super) images: Vec<Image>,
}

impl Incoming {
    pub(super) fn new(store: &Store, limits: &Limits) -> Result<Self> {
        let mut checked = HashSet::new();
        for (id, row) in store.images()? {
            let blobs = Record::of(&id, &row)?.layers.into_iter().map(|layer| layer.digest);
            checked.extend(row.layers.into_iter().zip(blobs));
        }
        let (store, limits) = (store.clone(), limits.clone());
        let lease = Mutex::new(store.lease());
        Ok(Self { store, limits, lease, checked })
    }

    /// Puts an image whose layers are there.
    pub(super) fn put_image(&self, image: &Image, change: impl FnOnce(&mut Record)) -> Result<()> {
        let blobs: Vec<Descriptor> = image.layers.iter().map(|layer| layer.blob.clone()).collect();
        let mut record = Record::new(image.manifest_type.clone(), blobs);
        if let Some(known) = self.store.image(&image.id)? {
            // It came before: its history stays.
            let known = Record::of(&image.id, &known)?;
            (record.parent, record.repo_digests) = (known.parent, known.repo_digests);
        }
        change(&mut record);
        for document in [&image.config, &image.manifest] {
            self.store.write_blob(document, Durability::Process)?;
        }
        let mut size = 0;
        for layer in &image.layers {
            size += self.store.layer_size(&layer.chain_id)?.unwrap_or(0);
        }
        let mut kept: Vec<Digest> = record.layers.iter().map(|blob| blob.digest.clone()).collect();
        kept.extend([image.id.clone(), image.manifest_digest.clone()]);
        let row = ImageRow {
            manifest: Some(image.manifest_digest.clone()),
            config: image.id.clone(),
            layers: image.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
            blobs: kept,
            size,
            created_ns: nanoseconds(image.parsed.created.as_deref()),
            body: record.body()?,
        };
        Ok(self.store.put_image(&image.id, &row)?)
    }

    /// Unpacks a blob into its layer, or only checks it when the layer is there.
    fn unpack(&self, layer: &Layer, blob: impl Read + Send) -> ImageResult<()> {
        if self.store.layer(&layer.chain_id).map_err(end("look up layer"))?.is_some() {
            return check(layer, blob, &self.limits);
        }
        let begin =
            |mut lease: std::sync::MutexGuard<'_, Lease>| lease.begin_layer(&layer.chain_id);
        let ingest = begin(self.lease.lock().map_err(poisoned)?).map_err(end("make layer"))?;
        let root = RootDir::open(ingest.path())
            .map_err(|source| ImageError::Apply { path: ingest.path().to_owned(), source })?;
        let applied = unpack_layer(blob, &layer.diff_id, &root, &self.limits)?;
        ingest.commit(applied.size).map(drop).map_err(end("keep layer"))
    }
}

impl Spool for Incoming {
    fn size(&self, digest: &Digest) -> ImageResult<Option<u64>> {
        let mut lease = self.lease.lock().map_err(poisoned)?;
        if lease.hold_blob(digest).map_err(end("look up blob"))? {
            return self.store.blob_size(digest).map_err(end("look up blob"));
        }
        Ok(None)
    }

    fn put(&self, content: &mut dyn Read) -> ImageResult<(Digest, u64)> {
        let mut ingest = self.store.ingest().map_err(end("begin blob"))?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.downcast().unwrap_or_else(ImageError::Read)),
            };
            ingest.write_all(&buffer[..n]).map_err(|error| full("write blob", error))?;
        }
        let kept = ingest.commit_as(None, Durability::Process).map_err(end("keep blob"))?;
        let mut lease = self.lease.lock().map_err(poisoned)?;
        lease.hold_blob(&kept.0).map_err(end("hold blob"))?;
        Ok(kept)
    }

    fn open(&self, digest: &Digest) -> ImageResult<Box<dyn Read + Send + '_>> {
        open(&self.store, digest)
    }
}

impl Sink for Incoming {
    fn lanes(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from).min(4)
    }

    fn has_layer(&self, layer: &Layer) -> ImageResult<bool> {
        let mut lease = self.lease.lock().map_err(poisoned)?;
        let there = lease.hold_layer(&layer.chain_id).map_err(end("look up layer"))?
            && lease.hold_blob(&layer.blob.digest).map_err(end("look up blob"))?;
        let pair = (layer.chain_id.clone(), layer.blob.digest.clone());
        Ok(there && self.checked.contains(&pair))
    }

    fn layer(&self, layer: &Layer, blob: Box<dyn Read + Send + '_>) -> ImageResult<()> {
        let digest = &layer.blob.digest;
        if self.store.has_blob(digest).map_err(end("look up blob"))? {
            return self.unpack(layer, blob);
        }
        // The stream is kept on its way through.
        let begin = |mut lease: std::sync::MutexGuard<'_, Lease>| lease.ingest(digest);
        let mut ingest = begin(self.lease.lock().map_err(poisoned)?).map_err(end("begin blob"))?;
        let mut tee = Tee { inner: blob, copy: &mut ingest };
        self.unpack(layer, &mut tee)?;
        io::copy(&mut tee, &mut io::sink()).map_err(|error| full("write blob", error))?;
        ingest.commit_as(Some(digest), Durability::Process).map(drop).map_err(end("keep blob"))
    }

    fn image(&self, image: &Image) -> ImageResult<()> {
        self.put_image(image, |_| {}).map_err(end("keep image"))
    }
}

impl Source for Outgoing<'_> {
    fn images(&self) -> ImageResult<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn open(&self, blob: &Descriptor) -> ImageResult<Box<dyn Read + Send + '_>> {
        open(self.store, &blob.digest)
    }
}

struct Tee<'a, R> {
    inner: R,
    copy: &'a mut capsa_store::Ingest,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..n])?;
        Ok(n)
    }
}

fn open(store: &Store, digest: &Digest) -> ImageResult<Box<dyn Read + Send + 'static>> {
    match store.blob(digest).map_err(end("open blob"))? {
        Some(file) => Ok(Box::new(file)),
        None => Err(ImageError::Missing(format!("blob {digest}"))),
    }
}

/// Hashes a blob's plain bytes.
fn check(layer: &Layer, blob: impl Read + Send, limits: &Limits) -> ImageResult<()> {
    let (_, mut plain) = capsa_image::decompress(blob, limits)?;
    let mut hasher = Hasher::new();
    io::copy(&mut plain, &mut hasher)
        .map_err(|error| error.downcast().unwrap_or_else(ImageError::Read))?;
    let (expected, actual) = (layer.diff_id.clone(), hasher.finish());
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::Digest { what: "layer".to_owned(), expected, actual })
}

fn end<E>(attempt: &'static str) -> impl Fn(E) -> ImageError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| ImageError::end(attempt, error)
}

fn full(attempt: &'static str, error: io::Error) -> ImageError {
    error.downcast().unwrap_or_else(|error| ImageError::end(attempt, error))
}

fn poisoned<T>(_: T) -> ImageError {
    ImageError::Read(io::Error::other("an earlier layer's thread failed"))
}
