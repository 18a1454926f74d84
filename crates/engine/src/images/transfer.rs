//! Images in and out: the store as an end of `capsa_image::copy`.
//!
//! A layer is kept twice: its blob as it came, so that a later save or push gives the
//! same bytes, and unpacked. A lease protects both until the image refers to them.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use capsa_image::archive::{Archive, ArchiveSink, Spool};
use capsa_image::{Image, Layer, Limits, Sink, Source};
use capsa_oci::{Descriptor, Digest, Platform, Reference};
use capsa_store::{Durability, ImageRow, Lease, Store};
use capsa_sys::root::RootDir;
use jiff::Timestamp;

use super::{Body, Images, body_text};
use crate::view::{ByteSource, Progress, ProgressSink};
use crate::{Error, Result, clock};

/// No honest manifest is larger.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

/// The store as source, spool and sink.
pub(super) struct StoreEnd<'a> {
    store: &'a Store,
    lease: Mutex<Lease>,
    /// The first failure on our side, which says more than what the copy makes of it.
    failure: Mutex<Option<Error>>,
    parent: Option<Digest>,
    limits: Limits,
}

/// Images chosen to be saved.
pub(crate) struct SavePlan {
    images: Vec<Image>,
}

impl SavePlan {
    /// Ids, with the name each was asked for.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Digest, String)> {
        self.images.iter().map(|image| {
            let name = image.names.first().map(Reference::familiar);
            (image.id.clone(), name.unwrap_or_else(|| image.id.to_string()))
        })
    }
}

impl Images {
    /// Reads an archive; ids and names of its images.
    pub(crate) fn load(
        &self,
        archive: ByteSource,
        progress: &ProgressSink,
    ) -> Result<Vec<(Digest, Option<String>)>> {
        let end = StoreEnd::new(&self.store, None);
        let archive = Archive::read(archive, &end, &Platform::host(), &end.limits)
            .map_err(|error| end.explain(error))?;
        let images = archive.images().map_err(|error| end.explain(error))?;
        let on_progress = |layer: &Layer, bytes: u64| {
            // A client that has left is told nothing.
            let _ = progress.send(Progress {
                id: layer.diff_id.short().to_owned(),
                status: "Loading layer".to_owned(),
                counted: Some((bytes, layer.blob.size)),
                stream: None,
            });
        };
        capsa_image::copy(&archive, &images, &end, &on_progress)
            .map_err(|error| end.explain(error))?;
        let mut loaded = Vec::new();
        for image in &images {
            self.forget(&image.id);
            for name in image.names.iter().map(Reference::familiar) {
                tell(progress, format!("Loaded image: {name}\n"));
                loaded.push((image.id.clone(), Some(name)));
            }
            if image.names.is_empty() {
                tell(progress, format!("Loaded image ID: {}\n", image.id));
                loaded.push((image.id.clone(), None));
            }
        }
        Ok(loaded)
    }

    /// Finds what is to be saved: an id without names, a name with itself, a repository
    /// without a tag with all its tags.
    pub(crate) fn plan_save(&self, keys: &[String]) -> Result<SavePlan> {
        let mut images: Vec<Image> = Vec::new();
        for key in keys {
            for (id, name) in self.meant(key)? {
                let at = match images.iter().position(|image| image.id == id) {
                    Some(at) => at,
                    None => {
                        images.push(self.stored(&id)?);
                        images.len() - 1
                    }
                };
                if let Some(name) = name
                    && !images[at].names.contains(&name)
                {
                    images[at].names.push(name);
                }
            }
        }
        Ok(SavePlan { images })
    }

    /// Writes an archive.
    pub(crate) fn save(&self, plan: &SavePlan, out: impl Write + Send) -> capsa_image::Result<()> {
        let end = StoreEnd::new(&self.store, None);
        let sink = ArchiveSink::new(out)?;
        capsa_image::copy(&end, &plan.images, &sink, &|_, _| {})?;
        sink.finish().map(drop)
    }

    fn meant(&self, key: &str) -> Result<Vec<(Digest, Option<Reference>)>> {
        if let Ok(reference) = Reference::parse(key) {
            if reference.tag().is_none() && reference.digest().is_none() {
                let prefix = format!("{}:", reference.canonical());
                let tagged: Vec<_> = self
                    .store
                    .tags()?
                    .into_iter()
                    .filter(|(name, _)| name.starts_with(&prefix))
                    .map(|(name, id)| (id, Reference::parse(&name).ok()))
                    .collect();
                if !tagged.is_empty() {
                    return Ok(tagged);
                }
            }
            if let Some(id) = self.by_reference(&reference)? {
                return Ok(vec![(id, Some(reference.with_default_tag()))]);
            }
        }
        Ok(vec![(self.find(key)?, None)])
    }

    /// A stored image as it moves.
    pub(super) fn stored(&self, id: &Digest) -> Result<Image> {
        let row = self.row(id)?;
        let config = self.store.read_blob(&row.config, super::CONFIG_MAX)?;
        let manifest = match &row.manifest {
            Some(digest) => self.store.read_blob(digest, MANIFEST_MAX)?,
            None => return Err(Error::kernel(format!("image {id} has no manifest"))),
        };
        Image::new(config, manifest, Vec::new()).map_err(|error| Error::kernel(error.to_string()))
    }
}

impl<'a> StoreEnd<'a> {
    /// An end of `store`; images that it takes get `parent`.
    pub(super) fn new(store: &'a Store, parent: Option<Digest>) -> Self {
        Self {
            store,
            lease: Mutex::new(store.lease()),
            failure: Mutex::new(None),
            parent,
            limits: Limits::default(),
        }
    }

    /// The failure behind `error`: ours if there was one.
    pub(super) fn explain(&self, error: capsa_image::Error) -> Error {
        let ours = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        ours.unwrap_or_else(|| Error::invalid(error.to_string()))
    }

    /// Keeps bytes as a blob; flushed with the image.
    pub(super) fn keep(&self, content: &mut dyn Read) -> Result<(Digest, u64)> {
        let mut ingest = self.store.ingest()?;
        io::copy(content, &mut ingest).map_err(|error| broken(&error))?;
        let (digest, size) = ingest.commit_as(None, Durability::Process)?;
        self.hold(&digest)?;
        Ok((digest, size))
    }

    fn hold(&self, digest: &Digest) -> Result<bool> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lease.hold_blob(digest)?)
    }

    fn hold_layer(&self, chain_id: &Digest) -> Result<bool> {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lease.hold_layer(chain_id)?)
    }

    /// Notes our own failure and gives the copy one of its kind.
    fn noted<T>(&self, outcome: Result<T>) -> capsa_image::Result<T> {
        outcome.map_err(|error| {
            let text = error.to_string();
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            capsa_image::Error::Read(io::Error::other(text))
        })
    }

    fn unpack(&self, layer: &Layer, mut blob: Box<dyn Read + Send + '_>) -> Result<()> {
        if !self.hold(&layer.blob.digest)? {
            let (digest, _) = self.keep(&mut *blob)?;
            if digest != layer.blob.digest {
                return Err(Error::invalid(format!(
                    "layer {} came with other bytes: {digest}",
                    layer.blob.digest
                )));
            }
        }
        drop(blob);
        if self.hold_layer(&layer.chain_id)? {
            return Ok(());
        }
        let file = self
            .store
            .blob(&layer.blob.digest)?
            .ok_or_else(|| Error::kernel(format!("blob {} vanished", layer.blob.digest)))?;
        let ingest = self.store.begin_layer(&layer.chain_id)?;
        let root = RootDir::open(ingest.path())?;
        let applied = capsa_image::unpack_layer(file, &layer.diff_id, &root, &self.limits)
            .map_err(|error| unpack_error(&error))?;
        ingest.commit(applied.size)?;
        Ok(())
    }

    /// Stores the documents and the row, and gives the names.
    pub(super) fn store_image(&self, image: &Image) -> Result<()> {
        let (config, _) = self.keep(&mut image.config.as_slice())?;
        let (manifest, _) = self.keep(&mut image.manifest.as_slice())?;
        let mut size = 0;
        for layer in &image.layers {
            size += self.store.layer_size(&layer.chain_id)?.unwrap_or(0);
        }
        let mut blobs = vec![config.clone(), manifest.clone()];
        blobs.extend(image.layers.iter().map(|layer| layer.blob.digest.clone()));
        blobs.sort_unstable();
        blobs.dedup();
        let created = image.parsed.created.as_deref().and_then(|t| t.parse::<Timestamp>().ok());
        let created_ns = created.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        let body = Body { last_tagged_ns: clock::now_ns(), parent: self.parent.clone() };
        let row = ImageRow {
            manifest: Some(manifest),
            config,
            layers: image.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
            blobs,
            size,
            created_ns: created_ns.unwrap_or(0),
            body: body_text(&body)?,
        };
        self.store.put_image(&image.id, &row)?;
        for name in &image.names {
            self.store.set_tag(&name.canonical(), &image.id, Durability::Durable)?;
        }
        Ok(())
    }
}

impl Source for StoreEnd<'_> {
    fn images(&self) -> capsa_image::Result<Vec<Image>> {
        Ok(Vec::new())
    }

    fn open(&self, blob: &Descriptor) -> capsa_image::Result<Box<dyn Read + Send + '_>> {
        Spool::open(self, &blob.digest)
    }
}

impl Spool for StoreEnd<'_> {
    fn size(&self, digest: &Digest) -> capsa_image::Result<Option<u64>> {
        self.noted(self.store.blob_size(digest).map_err(Error::from))
    }

    fn put(&self, content: &mut dyn Read) -> capsa_image::Result<(Digest, u64)> {
        self.noted(self.keep(content))
    }

    fn open(&self, digest: &Digest) -> capsa_image::Result<Box<dyn Read + Send + '_>> {
        let file = self.noted(self.store.blob(digest).map_err(Error::from))?;
        match file {
            Some(file) => Ok(Box::new(file)),
            None => self.noted(Err(Error::not_found(format!("blob {digest} is missing")))),
        }
    }
}

impl Sink for StoreEnd<'_> {
    fn lanes(&self) -> usize {
        2
    }

    fn has_layer(&self, layer: &Layer) -> capsa_image::Result<bool> {
        self.noted((|| Ok(self.hold_layer(&layer.chain_id)? && self.hold(&layer.blob.digest)?))())
    }

    fn layer(&self, layer: &Layer, blob: Box<dyn Read + Send + '_>) -> capsa_image::Result<()> {
        self.noted(self.unpack(layer, blob))
    }

    fn image(&self, image: &Image) -> capsa_image::Result<()> {
        self.noted(self.store_image(image))
    }
}

fn tell(progress: &ProgressSink, line: String) {
    let line =
        Progress { id: String::new(), status: String::new(), counted: None, stream: Some(line) };
    // A client that has left is told nothing.
    let _ = progress.send(line);
}

/// A stream that ends early is the client's, a full disk is ours.
fn broken(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(error),
        _ => Error::invalid(format!("the archive could not be read: {error}")),
    }
}

fn unpack_error(error: &capsa_image::Error) -> Error {
    let text = error.to_string();
    if text.contains("No space left") { full(&text) } else { Error::invalid(text) }
}

fn full(error: &dyn std::fmt::Display) -> Error {
    Error::new(crate::Class::Exhausted, format!("no space left on device: {error}"))
        .with_hint("free space under the data root; `capsa system df` shows what capsa uses")
}
