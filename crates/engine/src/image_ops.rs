//! Images, as the engine's callers see them: the blocking work of `images` off the
//! async threads, with the events it causes.

use capsa_oci::{Digest, Reference};

use crate::options::{CommitOptions, Pruned};
use crate::view::{ByteSource, ByteStream, ImageView, ProgressSink};
use crate::{Error, Result};

/// One step of an image's making, newest first.
#[derive(Clone, Debug)]
pub struct HistoryView {
    /// The image id, for the newest step only.
    pub id: Option<Digest>,
    /// Seconds since the epoch.
    pub created_s: i64,
    /// The instruction.
    pub created_by: String,
    /// Tags, for the newest step only.
    pub tags: Vec<String>,
    /// Bytes of its layer.
    pub size: u64,
    /// Comment.
    pub comment: String,
}

/// What removing an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name went.
    Untagged(String),
    /// An image went.
    Deleted(String),
}

/// All images of one engine.
#[derive(Debug)]
pub struct ImageOps {}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl ImageOps {
    /// Every image, newest first.
    pub async fn list(&self) -> Result<Vec<ImageView>> {
        Ok(Vec::new())
    }
    /// One image by id, unique id prefix or reference.
    pub async fn inspect(&self, key: &str) -> Result<ImageView> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// How it came to be, newest first.
    pub async fn history(&self, key: &str) -> Result<Vec<HistoryView>> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Names it.
    pub async fn tag(&self, key: &str, reference: &Reference) -> Result<()> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Takes a name away, or the image.
    pub async fn remove(&self, key: &str, force: bool, prune: bool) -> Result<Vec<Removed>> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Reads an archive.
    pub async fn load(&self, archive: ByteSource, progress: ProgressSink) -> Result<()> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Writes an archive of these images.
    pub async fn save(&self, keys: Vec<String>) -> Result<ByteStream> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Makes an image of a file system tar; its id.
    pub async fn import(
        &self,
        tar: ByteSource,
        reference: Option<Reference>,
        changes: Vec<String>,
        message: String,
    ) -> Result<Digest> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Makes an image of a container; its id.
    pub async fn commit(&self, container: &str, options: CommitOptions) -> Result<Digest> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Fetches an image from its registry.
    pub async fn pull(&self, reference: &Reference, progress: ProgressSink) -> Result<()> {
        Err(Error::unavailable("images are not built yet"))
    }
    /// Removes images without a name, or all unused ones when `all`; those for which `choose` says so.
    pub async fn prune(
        &self,
        all: bool,
        choose: impl Fn(&ImageView) -> bool + Send,
    ) -> Result<(Vec<Removed>, Pruned)> {
        Err(Error::unavailable("images are not built yet"))
    }
}
