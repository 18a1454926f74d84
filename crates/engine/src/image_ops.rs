//! Images, as the engine's callers see them: the blocking work of `images` off the
//! async threads, with the events it causes.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use capsa_image::registry::{Access, Cancel};
use capsa_oci::{Digest, Empty, ExecConfig, Reference};
use tokio::task::block_in_place;

pub use capsa_image::{ChangeKind, Difference};

pub use crate::images::{ImagesUsage, TreeLayer, TreeView};

use crate::container::files;
use crate::container::record::Record;
use crate::images::{CommitInput, Pruning};
use crate::options::{CommitOptions, Credentials, Pruned, RegistryOptions};
use crate::view::{ByteSource, ByteStream, DistributionView, ImageView, Phase, ProgressSink};
use crate::world::World;
use crate::{Result, blocking};

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
pub struct ImageOps {
    world: Arc<World>,
}

impl ImageOps {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Every image, newest first.
    pub async fn list(&self) -> Result<Vec<ImageView>> {
        block_in_place(|| self.world.images.list())
    }

    /// One image by id, unique id prefix or reference.
    pub async fn inspect(&self, key: &str) -> Result<ImageView> {
        block_in_place(|| self.world.images.inspect(key))
    }

    /// How it came to be, newest first.
    pub async fn history(&self, key: &str) -> Result<Vec<HistoryView>> {
        block_in_place(|| self.world.images.history(key))
    }

    /// It by its layers, and what of them is wasted.
    pub async fn tree(&self, key: &str) -> Result<TreeView> {
        let (images, key) = (self.world.images.clone(), key.to_owned());
        blocking(move || images.tree(&key)).await
    }

    /// What differs from one image's files to another's.
    pub async fn differences(&self, from: &str, to: &str) -> Result<Vec<Difference>> {
        let images = self.world.images.clone();
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking(move || images.differences(&from, &to)).await
    }

    /// Names it.
    pub async fn tag(&self, key: &str, reference: &Reference) -> Result<()> {
        let id = block_in_place(|| {
            self.world.images.tag(key, reference)?;
            self.world.images.resolve(key)
        })?;
        self.event("tag", id.as_str(), &reference.clone().with_default_tag().familiar());
        Ok(())
    }

    /// Takes a name away, or the image; `prune` takes its unnamed parents along.
    pub async fn remove(&self, key: &str, force: bool, prune: bool) -> Result<Vec<Removed>> {
        let is_running = |id: &str| self.is_running(id);
        let removed = block_in_place(|| self.world.images.remove(key, force, prune, &is_running))?;
        self.tell_removed(&removed, None);
        Ok(removed)
    }

    /// What [`Self::remove`] would do now, and the bytes it would free.
    pub async fn rehearse_removal(
        &self,
        key: &str,
        force: bool,
        prune: bool,
    ) -> Result<(Vec<Removed>, u64)> {
        let is_running = |id: &str| self.is_running(id);
        block_in_place(|| self.world.images.rehearse_removal(key, force, prune, &is_running))
    }

    /// What images take on disk.
    pub async fn usage(&self) -> Result<ImagesUsage> {
        block_in_place(|| self.world.images.usage())
    }

    /// Reads an archive.
    pub async fn load(&self, archive: ByteSource, progress: ProgressSink) -> Result<()> {
        let images = self.world.images.clone();
        // A client that has left is told nothing.
        let tell = move |line| drop(progress.send(line));
        let loaded = blocking(move || images.load(archive, &tell)).await?;
        for image in &loaded {
            let name = image.names.first().cloned().unwrap_or_else(|| image.id.to_string());
            self.event("load", image.id.as_str(), &name);
        }
        self.trim(loaded.into_iter().map(|image| image.id).collect()).await;
        Ok(())
    }

    /// Writes an archive of these images.
    pub async fn save(&self, keys: Vec<String>) -> Result<ByteStream> {
        let images = self.world.images.clone();
        let plan = block_in_place(|| images.plan_save(&keys))?;
        for image in &plan {
            let name = image.names.first().map(Reference::familiar);
            self.event("save", image.id.as_str(), &name.unwrap_or_else(|| image.id.to_string()));
        }
        Ok(files::stream(move |out| images.write_archive(plan, out).map_err(std::io::Error::other)))
    }

    /// Makes an image of a file system tar; its id.
    pub async fn import(
        &self,
        tar: ByteSource,
        reference: Option<Reference>,
        changes: Vec<String>,
        message: String,
    ) -> Result<Digest> {
        let images = self.world.images.clone();
        let name = reference.as_ref().map(Reference::familiar);
        let id =
            blocking(move || images.import(tar, reference.as_ref(), &changes, &message)).await?;
        self.event("import", id.as_str(), &name.unwrap_or_else(|| id.to_string()));
        self.trim(vec![id.clone()]).await;
        Ok(id)
    }

    /// Makes an image of a container; its id.
    pub async fn commit(&self, container: &str, options: CommitOptions) -> Result<Digest> {
        let handle = self.world.registry.find(container)?;
        let record = handle.record();
        let freeze = options.pause && record.live.phase == Phase::Running;
        if freeze {
            handle.ask(crate::container::handle::Command::Pause).await?;
        }
        let world = Arc::clone(&self.world);
        let source = Arc::clone(&record);
        let made = blocking(move || {
            let upper = world.store.container_dir(&source.id)?.join("rootfs/upper");
            world.images.commit(&commit_input(&source, upper), &options)
        })
        .await;
        if freeze {
            handle.ask(crate::container::handle::Command::Unpause).await?;
        }
        let id = made?;
        self.world.container_event(&record, "commit", []);
        self.trim(vec![id.clone()]).await;
        Ok(id)
    }

    /// Fetches images from their registry. It ends when the caller drops it.
    pub async fn pull(&self, options: RegistryOptions, progress: ProgressSink) -> Result<()> {
        let images = self.world.images.clone();
        let (access, _ends_with_us) = access(options.credentials);
        let pulled = blocking(move || {
            let tell = move |line| drop(progress.send(line));
            let wanted = match (options.reference.tag(), options.reference.digest()) {
                (None, None) => images.remote_tags(&options.reference, &access)?,
                _ => vec![options.reference],
            };
            let pull = |tag| images.pull(tag, options.platform.as_ref(), &access, &tell);
            wanted.iter().map(pull).collect::<Result<Vec<_>>>()
        })
        .await?;
        for image in &pulled {
            self.event("pull", &image.name, &image.name);
        }
        self.trim(pulled.into_iter().map(|image| image.id).collect()).await;
        Ok(())
    }

    /// Sends an image to its registry. It ends when the caller drops it.
    pub async fn push(&self, options: RegistryOptions, progress: ProgressSink) -> Result<()> {
        let images = self.world.images.clone();
        let (access, _ends_with_us) = access(options.credentials);
        let name = options.reference.familiar();
        blocking(move || {
            let tell = move |line| drop(progress.send(line));
            images.push(&options.reference, &access, &tell)
        })
        .await?;
        self.event("push", &name, &name);
        Ok(())
    }

    /// Shows credentials to a registry; the identity token it gave, if it gives one.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Option<String>> {
        let (images, registry) = (self.world.images.clone(), registry.to_owned());
        let (access, _ends_with_us) = access(None);
        blocking(move || images.login(&registry, &credentials, &access.cancel)).await
    }

    /// What a registry has for a reference now.
    pub async fn distribution(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<DistributionView> {
        let (images, reference) = (self.world.images.clone(), reference.clone());
        let (access, _ends_with_us) = access(credentials);
        blocking(move || images.distribution(&reference, &access)).await
    }

    /// Removes images without a name, or all unused ones when `all`; those for which `choose` says so.
    pub async fn prune(
        &self,
        all: bool,
        choose: impl Fn(&ImageView) -> bool + Send,
    ) -> Result<(Vec<Removed>, Pruned)> {
        let pruning = Pruning { all, choose: &choose, gone: &HashSet::new() };
        let (removed, pruned) = block_in_place(|| self.world.images.prune(&pruning))?;
        self.tell_removed(&removed, None);
        Ok((removed, pruned))
    }

    /// What [`Self::prune`] would do if the containers `gone` were removed before.
    pub async fn rehearse_prune(
        &self,
        all: bool,
        choose: impl Fn(&ImageView) -> bool + Send,
        gone: &HashSet<String>,
    ) -> Result<(Vec<Removed>, Pruned)> {
        let pruning = Pruning { all, choose: &choose, gone };
        block_in_place(|| self.world.images.rehearse_prune(&pruning))
    }

    /// Makes room after an image has come, if the settings ask for it. Whoever brought it
    /// got it, so a failure here is not theirs.
    async fn trim(&self, came: Vec<Digest>) {
        let Some(mark) = self.world.config.image_store else { return };
        let own = Self::new(Arc::clone(&self.world));
        // All of it there: events come also when the client has left.
        let trimming = blocking(move || {
            let removed = own.world.images.trim(&mark, &came)?;
            own.tell_removed(&removed, Some("image-store-max"));
            Ok(())
        });
        if let Err(error) = trimming.await {
            tracing::warn!(%error, "old images not removed");
        }
    }

    fn is_running(&self, id: &str) -> bool {
        self.world.registry.find(id).is_ok_and(|handle| handle.record().live.pid != 0)
    }

    /// `reason` is the setting that had them removed, when no user did.
    fn tell_removed(&self, removed: &[Removed], reason: Option<&str>) {
        for step in removed {
            let (action, name) = match step {
                Removed::Untagged(name) => ("untag", name),
                Removed::Deleted(id) => ("delete", id),
            };
            let mut attributes = BTreeMap::from([("name".to_owned(), name.clone())]);
            attributes.extend(reason.map(|reason| ("reason".to_owned(), reason.to_owned())));
            self.world.events.emit("image", action, name, attributes);
        }
    }

    fn event(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.world.events.emit("image", action, id, attributes);
    }
}

/// Cancels what a registry is asked when it goes out of scope.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn access(credentials: Option<Credentials>) -> (Access, CancelOnDrop) {
    let access = Access { credentials, cancel: Cancel::default() };
    let guard = CancelOnDrop(access.cancel.clone());
    (access, guard)
}

/// The image's defaults with what the container was run with, as Docker's commit has it.
fn commit_input(record: &Record, upper: PathBuf) -> CommitInput {
    let resolved = &record.resolved;
    let ports = resolved.exposed.iter().map(|port| (port.to_string(), Empty {}));
    let command = std::iter::once(&resolved.path).chain(&resolved.args);
    let config = ExecConfig {
        user: Some(resolved.user.clone()).filter(|user| !user.is_empty()),
        exposed_ports: Some(ports.collect()).filter(|ports: &BTreeMap<_, _>| !ports.is_empty()),
        env: Some(resolved.env.clone()),
        entrypoint: resolved.entrypoint.clone(),
        cmd: resolved.cmd.clone(),
        working_dir: Some(resolved.working_dir.clone()).filter(|dir| dir != "/"),
        labels: Some(resolved.labels.clone()).filter(|labels| !labels.is_empty()),
        ..ExecConfig::default()
    };
    CommitInput {
        parent: record.image.clone(),
        upper,
        config,
        command: command.map(String::as_str).collect::<Vec<_>>().join(" "),
    }
}
