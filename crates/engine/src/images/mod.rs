//! Images over the store: what they are called, what they are made of, and moving
//! them in and out.
//!
//! Everything here blocks; callers run it off the async threads and emit the events.
//! An image is named by the digest of its config. Its layers are kept twice: unpacked
//! for overlayfs, and as the blob they came in, byte for byte, so that `save` (and a
//! push) gives back exactly what came, without packing anything again. That costs disk
//! (about the layer's packed size) and buys digests that never change.
//!
//! Invariant: a layer blob is recorded with a diff id only after its bytes were hashed
//! to that diff id here.

mod arrivals;
mod change;
mod commit;
mod early;
mod ends;
mod layers;
mod moving;
mod packed;
mod plan;
mod progress;
mod pull;
mod push;
mod record;
mod remove;
mod resolve;
#[cfg(test)]
mod tests;
mod trim;
mod usage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use capsa_image::registry::Client as Registries;
use capsa_image::registry::{Failure, RegistryError};
use capsa_image::{Error as ImageError, Limits};
use capsa_oci::{Digest, ImageConfig, Reference};
use capsa_store::{Durability, ImageRow, Store};

use crate::error::Class;
use crate::image_ops::HistoryView;
use crate::view::ImageView;
use crate::{Error, Result};

pub use change::apply_changes;
pub use commit::CommitInput;
pub use layers::{TreeLayer, TreeView};
pub use remove::Pruning;
pub use usage::ImagesUsage;

use arrivals::Arrivals;
use record::Record;

/// Of a config or manifest.
const DOCUMENT_MAX: u64 = 8 << 20;

/// All images of one store. Clones share it.
#[derive(Clone)]
pub struct Images {
    store: Store,
    limits: Limits,
    registries: Registries,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Layers that several pulls may want at once.
    arrivals: Arc<Arrivals>,
    /// Held for reading while blobs and layers are on their way in, whose digests are
    /// not known beforehand; a sweep takes it for writing, or waits for the next time.
    moving: RwLock<()>,
    /// Held while images are removed because the store is too large.
    trimming: Mutex<()>,
    /// Parsed configs; a config never changes under its digest.
    configs: Mutex<HashMap<Digest, Arc<ImageConfig>>>,
    /// Where the layers of images lie, topmost first; they never change either.
    layers: Mutex<HashMap<Digest, Vec<PathBuf>>>,
}

impl Images {
    /// Images kept in `store`, and where others come from.
    pub fn new(store: Store, registries: Registries) -> Self {
        Self { store, limits: Limits::default(), registries, shared: Arc::default() }
    }

    /// Every image, newest first.
    ///
    /// # Errors
    /// The store fails, or a config is damaged.
    pub fn list(&self) -> Result<Vec<ImageView>> {
        let mut named: HashMap<Digest, Vec<String>> = HashMap::new();
        for (name, id) in self.store.tags()? {
            named.entry(id).or_default().push(name);
        }
        let mut views = Vec::new();
        for (id, row) in self.store.images()? {
            let record = Record::of(&id, &row)?;
            if !record.hidden {
                let names = named.remove(&id).unwrap_or_default();
                views.push(self.view(id, &row, record, &names)?);
            }
        }
        Ok(views)
    }

    /// One image by name, id or unique id prefix.
    ///
    /// # Errors
    /// `NotFound` with the text that makes clients pull, or a failure.
    pub fn inspect(&self, key: &str) -> Result<ImageView> {
        let id = self.resolve(key)?;
        let row = self.row(&id)?;
        let record = Record::of(&id, &row)?;
        self.view(id.clone(), &row, record, &self.store.tags_of(&id)?)
    }

    /// How an image came to be, newest step first.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn history(&self, key: &str) -> Result<Vec<HistoryView>> {
        let id = self.resolve(key)?;
        let row = self.row(&id)?;
        let config = self.config(&id)?;
        let mut layers = row.layers.iter();
        let mut steps = Vec::new();
        for step in &config.history {
            let chain = if step.empty_layer { None } else { layers.next() };
            let size = chain.map(|chain| self.store.layer_size(chain)).transpose()?.flatten();
            steps.push(HistoryView {
                id: None,
                created_s: seconds(step.created.as_deref()),
                created_by: step.created_by.clone().unwrap_or_default(),
                tags: Vec::new(),
                size: size.unwrap_or(0),
                comment: step.comment.clone().unwrap_or_default(),
            });
        }
        if let Some(newest) = steps.last_mut() {
            newest.tags = self.store.tags_of(&id)?.iter().map(|name| familiar(name)).collect();
            newest.id = Some(id);
        }
        steps.reverse();
        Ok(steps)
    }

    /// Names the image `key` also `reference` (with a tag); the image that had the
    /// name before, if another.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn tag(&self, key: &str, reference: &Reference) -> Result<Option<Digest>> {
        let id = self.resolve(key)?;
        self.set_name(&id, reference)
    }

    /// The config of an image by its id.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` when it fails its digest.
    pub fn config(&self, id: &Digest) -> Result<Arc<ImageConfig>> {
        let lost = |_| Error::new(Class::Unavailable, "the cache of image configs is broken");
        if let Some(config) = self.shared.configs.lock().map_err(lost)?.get(id) {
            return Ok(Arc::clone(config));
        }
        let bytes = self.store.read_blob(id, DOCUMENT_MAX)?;
        let config = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Class::Corrupt, format!("config of image {id}: {error}"))
        })?;
        let config = Arc::new(config);
        let mut cache = self.shared.configs.lock().map_err(lost)?;
        cache.insert(id.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// The directories of an image's layers, top first, as overlayfs wants them.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` when a layer is gone.
    pub fn rootfs_layers(&self, id: &Digest) -> Result<Vec<PathBuf>> {
        let known = || self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(paths) = known().get(id) {
            return Ok(paths.clone());
        }
        let row = self.row(id)?;
        let path = |chain: &Digest| {
            self.store.layer(chain)?.ok_or_else(|| {
                let text = format!("layer {chain} of image {id} is missing");
                Error::new(Class::Corrupt, text).with_hint("remove the image and load it again")
            })
        };
        let paths = row.layers.iter().rev().map(path).collect::<Result<Vec<_>>>()?;
        known().insert(id.clone(), paths.clone());
        Ok(paths)
    }

    fn view(
        &self,
        id: Digest,
        row: &ImageRow,
        record: Record,
        names: &[String],
    ) -> Result<ImageView> {
        Ok(ImageView {
            tags: names.iter().map(|name| familiar(name)).collect(),
            digests: record.repo_digests,
            config: ImageConfig::clone(&*self.config(&id)?),
            size: row.size,
            containers: self.store.containers_of_image(&id)?.len(),
            last_tagged_ns: record.stored_ns,
            parent: record.parent,
            id,
        })
    }

    fn row(&self, id: &Digest) -> Result<ImageRow> {
        self.store.image(id)?.ok_or_else(|| no_such_image(id.as_str()))
    }

    fn set_name(&self, id: &Digest, reference: &Reference) -> Result<Option<Digest>> {
        let name = reference.clone().with_default_tag().canonical();
        let before = self.store.set_tag(&name, id, Durability::Durable)?;
        Ok(before.filter(|before| before != id))
    }

    /// Takes away what nobody refers to, unless something is on its way in.
    fn sweep(&self) -> Result<u64> {
        match self.shared.moving.try_write() {
            Ok(_alone) => Ok(self.store.sweep()?.bytes),
            Err(_) => Ok(0),
        }
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("root", &self.store.root()).finish_non_exhaustive()
    }
}

/// The name as people write it.
fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// The text that clients answer with a pull.
fn no_such_image(name: &str) -> Error {
    Error::not_found(format!("No such image: {name}"))
}

/// Nanoseconds of an RFC 3339 time, 0 when there is none.
fn nanoseconds(time: Option<&str>) -> i64 {
    let parsed = time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    parsed.map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0))
}

fn seconds(time: Option<&str>) -> i64 {
    nanoseconds(time).div_euclid(1_000_000_000)
}

/// Now, as configs write it.
fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        use ImageError as E;
        let text = error.to_string();
        match error {
            E::Apply { source, .. } | E::Tree { source, .. } => {
                let class = Self::from(source).class;
                Self::new(class, text)
            }
            E::End { source, .. } => match source.downcast::<capsa_store::Error>() {
                Ok(own) => Self { message: text, ..Self::from(*own) },
                Err(_) => Self::new(Class::Unavailable, text),
            },
            E::Registry(error) => from_registry(&error),
            E::Redirect { .. } | E::Write(_) => Self::new(Class::Kernel, text),
            _ => Self::invalid(text),
        }
    }
}

/// Who has to act; the text says where it happened.
fn from_registry(error: &RegistryError) -> Error {
    let text = error.to_string();
    match error.failure {
        Failure::NotFound => Error::not_found(text),
        Failure::Unauthorized | Failure::Denied => {
            // Docker's own registry needs no name.
            let host = Some(&error.host).filter(|host| !host.ends_with(".docker.io"));
            let host = host.map(|host| format!(" {host}")).unwrap_or_default();
            let hint = format!("log in with `capsa login{host}`");
            Error::new(Class::Denied, text).with_hint(hint)
        }
        Failure::Invalid => Error::new(Class::Corrupt, text),
        Failure::Refused => Error::invalid(text),
        Failure::RateLimited | Failure::Unreachable | Failure::Unavailable | Failure::Cancelled => {
            Error::unavailable(text)
        }
    }
}
