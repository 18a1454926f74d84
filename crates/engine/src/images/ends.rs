//! The store as the two ends of a copy, and as the spool of an archive being read:
//! the one place where moving images meets keeping them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use capsa_image::archive::Spool;
use capsa_image::registry::Failure;
use capsa_image::{
    Blob, Error as ImageError, Image, Layer, Limits, Result as ImageResult, Sink, Source,
    unpack_layer,
};
use capsa_oci::{Descriptor, Digest, Hasher};
use capsa_store::{Durability, ImageRow, Ingest, Lease, Store};
use capsa_sys::root::RootDir;

use super::arrivals::Arrivals;
use super::early::{Early, Unpacked};
use super::nanoseconds;
use super::record::Record;
use crate::Result;

/// Of an archive's bytes.
const CHUNK: usize = 256 * 1024;

/// Blobs and layers on their way into the store, held until this is dropped.
pub(super) struct Incoming {
    store: Store,
    limits: Limits,
    lease: Mutex<Lease>,
    /// Layers with the blobs that were once hashed to their diff ids.
    checked: HashSet<(Digest, Digest)>,
    early: Early,
    arrivals: Arc<Arrivals>,
}

/// Images of the store, going out.
pub(super) struct Outgoing<'a> {
    pub(super) store: &'a Store,
    pub(super) images: Vec<Image>,
}

impl Incoming {
    pub(super) fn new(store: &Store, limits: &Limits, arrivals: &Arc<Arrivals>) -> Result<Self> {
        let mut checked = HashSet::new();
        for (id, row) in store.images()? {
            let record = Record::of(&id, &row)?;
            for (chain, blob) in row.layers.into_iter().zip(record.layers) {
                let packed = record.packed.get(&blob.digest);
                checked.extend(packed.map(|packed| (chain.clone(), packed.digest.clone())));
                checked.insert((chain, blob.digest));
            }
        }
        let (store, limits) = (store.clone(), limits.clone());
        let lease = Mutex::new(store.lease());
        let early = Early::new(lanes());
        let arrivals = Arc::clone(arrivals);
        Ok(Self { store, limits, lease, checked, early, arrivals })
    }

    /// Puts an image whose layers are there.
    pub(super) fn put_image(&self, image: &Image, change: impl FnOnce(&mut Record)) -> Result<()> {
        let blobs: Vec<Descriptor> = image.layers.iter().map(|layer| layer.blob.clone()).collect();
        let mut record = Record::new(image.manifest_type.clone(), blobs);
        if let Some(known) = self.store.image(&image.id)? {
            // It came before: its history stays.
            let known = Record::of(&image.id, &known)?;
            (record.parent, record.repo_digests) = (known.parent, known.repo_digests);
            record.packed = known.packed;
            record.packed.retain(|plain, _| record.layers.iter().any(|l| l.digest == *plain));
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
        kept.extend(record.packed.values().map(|blob| blob.digest.clone()));
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

    /// Begins the layer's blob, or goes on with what an earlier try left of it.
    fn begin_blob(&self, layer: &Layer) -> ImageResult<Ingest> {
        let mut lease = self.lease.lock().map_err(poisoned)?;
        lease.resume(&layer.blob.digest, layer.blob.size).map_err(end("begin blob"))
    }

    /// Keeps and unpacks a blob at once, on its way through.
    fn take(&self, layer: &Layer, blob: &Blob<'_>, mut ingest: Ingest) -> ImageResult<()> {
        let mut arriving = Arriving { ingest: &mut ingest, blob, rest: None };
        let done = self.unpack(layer, &mut arriving).and_then(|()| {
            let rest = io::copy(&mut arriving, &mut io::sink());
            rest.map(drop).map_err(|error| full("write blob", error))
        });
        drop(arriving);
        if let Err(error) = done {
            if is_interrupted(&error) {
                ingest.keep();
            }
            return Err(error);
        }
        let kept = ingest.commit_as(Some(&layer.blob.digest), Durability::Process);
        kept.map(drop).map_err(end("keep blob"))
    }

    /// Gives the layer that lies ready its name.
    fn publish(&self, layer: &Layer, unpacked: Unpacked) -> ImageResult<()> {
        let actual = unpacked.diff_id.unwrap_or_else(|| layer.blob.digest.clone());
        expect(&layer.diff_id, actual)?;
        if self.store.layer(&layer.chain_id).map_err(end("look up layer"))?.is_some() {
            return Ok(());
        }
        let committed = unpacked.ingest.commit(&layer.chain_id, unpacked.size);
        committed.map(drop).map_err(end("keep layer"))
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
        ingest.commit(&layer.chain_id, applied.size).map(drop).map_err(end("keep layer"))
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
        let mut chunk = vec![0; CHUNK];
        let mut n = fill(content, &mut chunk)?;
        let begun = self.early.begin(&self.store, &self.limits, &ingest, &chunk[..n]);
        let job = begun.map_err(end("begin layer"))?;
        while n > 0 {
            ingest.write_all(&chunk[..n]).map_err(|error| full("write blob", error))?;
            if let Some(job) = &job {
                job.advance(ingest.size());
            }
            n = fill(content, &mut chunk)?;
        }
        let kept = ingest.commit_as(None, Durability::Process).map_err(end("keep blob"))?;
        if let Some(job) = job
            && !self.checked.iter().any(|(_, blob)| *blob == kept.0)
        {
            self.early.keep(&kept.0, job);
        }
        let mut lease = self.lease.lock().map_err(poisoned)?;
        lease.hold_blob(&kept.0).map_err(end("hold blob"))?;
        Ok(kept)
    }

    fn open(&self, digest: &Digest) -> ImageResult<Box<dyn Read + Send + '_>> {
        Ok(Box::new(file(&self.store, digest)?))
    }
}

impl Sink for Incoming {
    fn lanes(&self) -> usize {
        lanes()
    }

    fn has_layer(&self, layer: &Layer) -> ImageResult<bool> {
        let mut lease = self.lease.lock().map_err(poisoned)?;
        let there = lease.hold_layer(&layer.chain_id).map_err(end("look up layer"))?
            && lease.hold_blob(&layer.blob.digest).map_err(end("look up blob"))?;
        let pair = (layer.chain_id.clone(), layer.blob.digest.clone());
        Ok(there && self.checked.contains(&pair))
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> ImageResult<()> {
        let digest = &layer.blob.digest;
        if let Some(unpacked) = self.early.take(digest) {
            self.publish(layer, unpacked?)?;
            blob.taken();
            return Ok(());
        }
        let _arrival = self.arrivals.begin(digest);
        if self.store.has_blob(digest).map_err(end("look up blob"))? {
            return self.unpack(layer, file(&self.store, digest)?);
        }
        let ingest = self.begin_blob(layer)?;
        let resumed = ingest.kept() > 0;
        match self.take(layer, blob, ingest) {
            // What was kept may have been damaged since: once more without it.
            Err(error) if resumed && !is_interrupted(&error) => {
                self.take(layer, blob, self.begin_blob(layer)?)
            }
            other => other,
        }
    }

    fn image(&self, image: &Image) -> ImageResult<()> {
        self.put_image(image, |_| {}).map_err(end("keep image"))
    }
}

impl Source for Outgoing<'_> {
    fn images(&self) -> ImageResult<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn open(&self, blob: &Descriptor, offset: u64) -> ImageResult<Box<dyn Read + Send + '_>> {
        let mut file = file(self.store, &blob.digest)?;
        file.seek(SeekFrom::Start(offset)).map_err(end("seek in blob"))?;
        Ok(Box::new(file))
    }
}

/// A blob as it arrives: first what is here already, then the rest from its source.
struct Arriving<'a> {
    ingest: &'a mut Ingest,
    blob: &'a Blob<'a>,
    rest: Option<Box<dyn Read + Send + 'a>>,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_none() {
            let n = self.ingest.read_kept(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
        }
        let rest = match &mut self.rest {
            Some(rest) => rest,
            None => self.rest.insert(self.blob.open(self.ingest.size())?),
        };
        let n = rest.read(buffer)?;
        self.ingest.write_all(&buffer[..n])?;
        Ok(n)
    }
}

/// Whether a blob ended early through no fault of its bytes.
fn is_interrupted(error: &ImageError) -> bool {
    matches!(error, ImageError::Registry(error) if error.failure != Failure::Invalid)
}

fn file(store: &Store, digest: &Digest) -> ImageResult<File> {
    let file = store.blob(digest).map_err(end("open blob"))?;
    file.ok_or_else(|| ImageError::Missing(format!("blob {digest}")))
}

/// Reads until the buffer is full or the stream ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> ImageResult<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.downcast().unwrap_or_else(ImageError::Read)),
        }
    }
    Ok(filled)
}

/// Hashes a blob's plain bytes.
fn check(layer: &Layer, blob: impl Read + Send, limits: &Limits) -> ImageResult<()> {
    let (_, mut plain) = capsa_image::decompress(blob, limits)?;
    let mut hasher = Hasher::new();
    io::copy(&mut plain, &mut hasher)
        .map_err(|error| error.downcast().unwrap_or_else(ImageError::Read))?;
    expect(&layer.diff_id, hasher.finish())
}

fn expect(diff_id: &Digest, actual: Digest) -> ImageResult<()> {
    if *diff_id == actual {
        return Ok(());
    }
    let expected = diff_id.clone();
    Err(ImageError::Digest { what: "layer".to_owned(), expected, actual })
}

/// Layers unpacked at a time.
fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use capsa_image::registry::{RegistryError, Step};
    use capsa_image::{Compression, compress, copy};
    use capsa_oci::media_type;
    use serde_json::json;

    use super::*;

    /// An image whose layer's connection breaks before `until`, as often as it is opened.
    struct Breaking {
        image: Image,
        blob: Vec<u8>,
        until: AtomicU64,
        given: AtomicU64,
    }

    struct Part<'a> {
        of: &'a Breaking,
        at: u64,
    }

    impl Breaking {
        fn new(bytes: usize) -> Self {
            let noise = |n: usize| Digest::sha256(&n.to_le_bytes()).hex().as_bytes().to_vec();
            let content: Vec<u8> = (0..bytes / 64).flat_map(noise).collect();
            let mut entry = capsa_image::tar::Entry::new("f", capsa_image::tar::Kind::File, 0o644);
            entry.size = content.len() as u64;
            let mut writer = capsa_image::tar::Writer::new(Vec::new());
            writer.entry(&entry, &mut &content[..]).unwrap();
            let plain = writer.finish().unwrap();
            let blob = compress(&mut &plain[..], Compression::Gzip, Vec::new()).unwrap();
            let describe = |kind: &str, bytes: &[u8]| {
                json!({"mediaType": kind,
                "digest": Digest::sha256(bytes), "size": bytes.len()})
            };
            let config = json!({"architecture": "amd64", "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&plain)]}})
            .to_string()
            .into_bytes();
            let manifest = json!({"schemaVersion": 2,
                "config": describe(media_type::OCI_CONFIG, &config),
                "layers": [describe(media_type::OCI_LAYER_GZIP, &blob)]})
            .to_string()
            .into_bytes();
            let image = Image::new(config, manifest, Vec::new()).unwrap();
            Self { image, blob, until: AtomicU64::new(u64::MAX), given: AtomicU64::new(0) }
        }

        fn pull_into(&self, store: &Store, until: u64) -> ImageResult<u64> {
            self.until.store(until, Ordering::SeqCst);
            self.given.store(0, Ordering::SeqCst);
            let sink = Incoming::new(store, &Limits::default(), &Arc::default()).unwrap();
            copy(self, std::slice::from_ref(&self.image), &sink, &|_, _| {})?;
            Ok(self.given.load(Ordering::SeqCst))
        }
    }

    impl Source for Breaking {
        fn images(&self) -> ImageResult<Vec<Image>> {
            Ok(vec![self.image.clone()])
        }

        fn open(&self, _: &Descriptor, at: u64) -> ImageResult<Box<dyn Read + Send + '_>> {
            Ok(Box::new(Part { of: self, at }))
        }
    }

    impl Read for Part<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let blob = &self.of.blob;
            let until = self.of.until.load(Ordering::SeqCst);
            if self.at >= until {
                let step = Step::Blob(Digest::sha256(blob));
                let error = RegistryError::new("r", "app", step, Failure::Unreachable, "gone");
                return Err(ImageError::from(Box::new(error)).into());
            }
            let end = until.min(blob.len() as u64);
            let n = buffer.len().min(usize::try_from(end - self.at).unwrap()).min(5000);
            let from = usize::try_from(self.at).unwrap();
            buffer[..n].copy_from_slice(&blob[from..from + n]);
            self.at += n as u64;
            self.of.given.fetch_add(n as u64, Ordering::SeqCst);
            Ok(n)
        }
    }

    fn partial(root: &std::path::Path) -> Option<std::path::PathBuf> {
        let mut names = std::fs::read_dir(root.join("ingest")).unwrap().map(|e| e.unwrap().path());
        names.find(|path| path.to_string_lossy().contains("sha256-"))
    }

    #[test]
    fn what_was_fetched_before_a_break_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = Breaking::new(1 << 20);
        let size = source.blob.len() as u64;
        let store = Store::open(dir.path()).unwrap();
        source.pull_into(&store, size / 2).unwrap_err();
        // The daemon ends, and another begins.
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let given = source.pull_into(&store, u64::MAX).unwrap();
        assert!(given <= size * 55 / 100, "{given} of {size} were fetched again");
        assert!(store.layer(&source.image.layers[0].chain_id).unwrap().is_some());
        let digest = &source.image.layers[0].blob.digest;
        assert!(store.read_blob(digest, u64::MAX).unwrap() == source.blob);
        assert_eq!(partial(dir.path()), None);
    }

    #[test]
    fn a_damaged_start_costs_a_second_try_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let source = Breaking::new(1 << 20);
        let size = source.blob.len() as u64;
        let store = Store::open(dir.path()).unwrap();
        source.pull_into(&store, size / 2).unwrap_err();
        let path = partial(dir.path()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        assert!(source.pull_into(&store, u64::MAX).unwrap() >= size);
        assert!(store.layer(&source.image.layers[0].chain_id).unwrap().is_some());
        assert_eq!(partial(dir.path()), None);
    }
}
