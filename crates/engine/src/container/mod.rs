//! Containers: what callers may ask of them.
//!
//! Each container is owned by one actor; the functions here find the actor by
//! key (id, unique id prefix, or name) and pass the request on, or read the
//! actor's latest snapshot. What takes long waits here, outside the actor.

mod actor;
mod create;
mod exit;
pub(crate) mod files;
pub(crate) mod filters;
pub(crate) mod fs_view;
pub(crate) mod handle;
mod intents;
mod isolation;
mod monitor_link;
mod mounts;
pub(crate) mod phase;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod registry;
mod remove;
pub(crate) mod resolve;
mod restart;
pub(crate) mod spares;
pub(crate) mod spec_inputs;
mod start;
mod stop;
mod top;
mod update;

use std::sync::Arc;

use capsa_runtime::protocol::AttachRequest;
use tokio::task::block_in_place;

use crate::exec_io::{Io, socket_pair};
use crate::logs;
use crate::options::{AttachOptions, AttachStream, Created, LogOptions, Pruned, WaitCondition};
use crate::spec::{ContainerSpec, Resources, RestartPolicy};
use crate::view::{
    ByteSource, ByteStream, ChangeKind, ContainerView, ExitView, PathStat, Phase, SizeView,
};
use crate::world::World;
use crate::{Error, Result, blocking};

use handle::{Command, Handle, Snapshot};

/// All containers of one engine.
#[derive(Debug)]
pub struct Containers {
    world: Arc<World>,
}

impl Containers {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a container of an image that is here.
    ///
    /// # Errors
    /// `NotFound` without the image, `Conflict` when the name is taken, `InvalidInput`.
    pub async fn create(&self, spec: ContainerSpec) -> Result<Created> {
        block_in_place(|| create::create(&self.world, spec))
    }

    /// Starts it; false when it runs already.
    ///
    /// # Errors
    /// `InvalidInput` when its program can't be run, `Conflict` when a port is taken.
    pub async fn start(&self, key: &str) -> Result<bool> {
        self.find(key)?.ask(Command::Start).await
    }

    /// Asks it to end, then kills it; false when it does not run.
    ///
    /// `timeout_s` is the grace in seconds; the container's own, else 10; negative waits for ever.
    pub async fn stop(
        &self,
        key: &str,
        signal: Option<i32>,
        timeout_s: Option<i64>,
    ) -> Result<bool> {
        stop::stop(&self.world, &self.find(key)?, signal, timeout_s).await
    }

    /// Stop and start.
    pub async fn restart(
        &self,
        key: &str,
        signal: Option<i32>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        let handle = self.find(key)?;
        stop::stop(&self.world, &handle, signal, timeout_s).await?;
        handle.ask(Command::Start).await?;
        self.world.container_event(&handle.record(), "restart", []);
        Ok(())
    }

    /// Sends a signal to its first process.
    pub async fn kill(&self, key: &str, signal: i32) -> Result<()> {
        stop::kill(&self.find(key)?, key, signal).await
    }

    /// Freezes it.
    pub async fn pause(&self, key: &str) -> Result<()> {
        self.find(key)?.ask(Command::Pause).await
    }

    /// Thaws it.
    pub async fn unpause(&self, key: &str) -> Result<()> {
        self.find(key)?.ask(Command::Unpause).await
    }

    /// Gives it another name.
    pub async fn rename(&self, key: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name).to_owned();
        self.find(key)?.ask(|reply| Command::Rename(name, reply)).await
    }

    /// Removes it, with its anonymous volumes when `volumes`; kills it first when `force`.
    pub async fn remove(&self, key: &str, force: bool, volumes: bool) -> Result<()> {
        let handle = self.find(key)?;
        loop {
            if force {
                stop::end_now(&handle).await?;
            }
            match handle.ask(|reply| Command::Remove { volumes, reply }).await {
                // One that removes itself was quicker.
                Err(_) if handle.snapshot().removed => return Ok(()),
                // Its start was before us in the queue.
                Err(_) if force && stop::runs(&handle.record()) => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits; the outer future resolves once the wait is registered, the inner when it is over.
    pub async fn wait(
        &self,
        key: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = ExitView> + Send + 'static> {
        Ok(stop::wait(&self.find(key)?, condition))
    }

    /// Every container, newest first; only running (and paused) ones unless `all`.
    pub fn list(&self, all: bool) -> Vec<ContainerView> {
        let mut views: Vec<ContainerView> = self
            .world
            .registry
            .all()
            .into_iter()
            .map(|handle| handle.snapshot())
            .filter(|snapshot| {
                let live = &snapshot.record.live;
                all || live.restarting || matches!(live.phase, Phase::Running | Phase::Paused)
            })
            .map(|snapshot| self.view(&snapshot))
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.created_ns));
        views
    }

    /// One container; with its sizes when `size`.
    pub async fn inspect(&self, key: &str, size: bool) -> Result<ContainerView> {
        let mut view = self.view(&self.find(key)?.snapshot());
        if size {
            let writable = block_in_place(|| self.world.store.rootfs_size(&view.id))?;
            let image = self.world.images.inspect(view.image_id.as_str())?.size;
            view.size = Some(SizeView { writable, total: writable + image });
        }
        Ok(view)
    }

    /// Joins its streams; also before its start.
    pub async fn attach(&self, key: &str, options: AttachOptions) -> Result<AttachStream> {
        let handle = self.find(key)?;
        let record = handle.record();
        if record.live.phase == Phase::Paused {
            return Err(Error::conflict(format!(
                "container {key} is paused, unpause the container before attach"
            )));
        }
        let (ours, theirs) = socket_pair()?;
        let request = AttachRequest {
            stdin: options.stdin && record.spec.process.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            detach_keys: Vec::new(),
        };
        handle.ask(|reply| Command::Attach(request, theirs, reply)).await?;
        self.world.container_event(&record, "attach", []);
        Ok(AttachStream { tty: record.spec.process.tty, io: Io::Socket(ours) })
    }

    /// Its log; whether it has a terminal, and the bytes (framed when it has none).
    pub async fn logs(&self, key: &str, options: LogOptions) -> Result<(bool, ByteStream)> {
        let handle = self.find(key)?;
        let record = handle.record();
        let path = self.world.places(&record).log;
        if path.as_os_str().is_empty() {
            return Err(Error::unavailable("configured logging driver does not support reading"));
        }
        let tty = record.spec.process.tty;
        Ok((tty, logs::read(path, tty, options, handle.watch())))
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, key: &str, rows: u16, columns: u16) -> Result<()> {
        self.find(key)?.ask(|reply| Command::Resize(rows, columns, reply)).await
    }

    /// Its processes: titles and rows, as `ps -ef` shows them.
    pub async fn top(&self, key: &str, arguments: &str) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let record = self.find(key)?.record();
        phase::must_run(record.live.phase, &record.id)?;
        block_in_place(|| top::processes(&self.world, &record, arguments))
    }

    /// What differs from the image.
    pub async fn changes(&self, key: &str) -> Result<Vec<(ChangeKind, String)>> {
        let record = self.find(key)?.record();
        block_in_place(|| files::changes(&self.world, &record))
    }

    /// Its file system as a tar.
    pub async fn export(&self, key: &str) -> Result<ByteStream> {
        let handle = self.find(key)?;
        self.world.container_event(&handle.record(), "export", []);
        files::export(&self.world, &handle.record())
    }

    /// Describes a path inside.
    pub async fn archive_stat(&self, key: &str, path: &str) -> Result<PathStat> {
        let record = self.find(key)?.record();
        block_in_place(|| files::stat(&self.world, &record, path))
    }

    /// A path inside as a tar.
    pub async fn archive_get(&self, key: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let record = self.find(key)?.record();
        block_in_place(|| files::get(&self.world, &record, path))
    }

    /// Unpacks a tar (plain or compressed) into a directory inside.
    pub async fn archive_put(
        &self,
        key: &str,
        path: &str,
        tar: ByteSource,
        no_overwrite_dir_non_dir: bool,
        copy_owner: bool,
    ) -> Result<()> {
        let record = self.find(key)?.record();
        let put = files::Put { no_overwrite_dir_non_dir, copy_owner };
        let (world, path) = (Arc::clone(&self.world), path.to_owned());
        // On a thread of its own: the upload arrives through the caller's task.
        blocking(move || files::put(&world, &record, &path, tar, put)).await
    }

    /// Changes limits and restart policy while it runs; warnings.
    pub async fn update(
        &self,
        key: &str,
        resources: Resources,
        restart: Option<RestartPolicy>,
    ) -> Result<Vec<String>> {
        let handle = self.find(key)?;
        handle.ask(|reply| Command::Update(Box::new(resources), restart, reply)).await?;
        Ok(Vec::new())
    }

    /// Removes stopped containers for which `choose` says so.
    pub async fn prune(&self, choose: impl Fn(&ContainerView) -> bool + Send) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for (id, bytes) in self.prunable(choose)? {
            if self.remove(&id, false, false).await.is_ok() {
                pruned.removed.push(id);
                pruned.bytes += bytes;
            }
        }
        Ok(pruned)
    }

    /// What [`Self::prune`] would remove now.
    pub fn rehearse_prune(&self, choose: impl Fn(&ContainerView) -> bool) -> Result<Pruned> {
        Ok(self.prunable(choose)?.into_iter().collect())
    }

    fn prunable(&self, choose: impl Fn(&ContainerView) -> bool) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for view in self.list(true) {
            let idle = matches!(view.phase, Phase::Created | Phase::Stopped) && !view.restarting;
            if idle && choose(&view) {
                let bytes = block_in_place(|| self.world.store.rootfs_size(&view.id))?;
                found.push((view.id, bytes));
            }
        }
        Ok(found)
    }

    fn find(&self, key: &str) -> Result<Handle> {
        self.world.registry.find(key)
    }

    fn view(&self, snapshot: &Snapshot) -> ContainerView {
        let places = self.world.places(&snapshot.record);
        snapshot.record.view(places, snapshot.execs.to_vec())
    }
}
