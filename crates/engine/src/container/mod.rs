//! Containers: what callers may ask of them.
//!
//! Each container is owned by one actor; the functions here find the actor by
//! key (id, unique id prefix, or name) and pass the request on, or read the
//! actor's latest snapshot. Nothing here touches the kernel.

use crate::options::{AttachOptions, AttachStream, Created, LogOptions, Pruned, WaitCondition};
use crate::spec::{ContainerSpec, Resources, RestartPolicy};
use crate::view::{ByteSource, ByteStream, ChangeKind, ContainerView, ExitView, PathStat};
use crate::{Error, Result};

/// All containers of one engine.
#[derive(Debug)]
pub struct Containers {}

fn soon<T>(what: &str) -> Result<T> {
    Err(Error::unavailable(format!("{what} is not built yet")))
}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl Containers {
    /// Makes a container of an image that is here.
    pub async fn create(&self, spec: ContainerSpec) -> Result<Created> {
        soon("create")
    }
    /// Starts it; false when it runs already.
    pub async fn start(&self, key: &str) -> Result<bool> {
        soon("start")
    }
    /// Asks it to end, then kills it; false when it does not run.
    pub async fn stop(
        &self,
        key: &str,
        signal: Option<i32>,
        timeout_s: Option<i64>,
    ) -> Result<bool> {
        soon("stop")
    }
    /// Stop and start.
    pub async fn restart(
        &self,
        key: &str,
        signal: Option<i32>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        soon("restart")
    }
    /// Sends a signal to its first process.
    pub async fn kill(&self, key: &str, signal: i32) -> Result<()> {
        soon("kill")
    }
    /// Freezes it.
    pub async fn pause(&self, key: &str) -> Result<()> {
        soon("pause")
    }
    /// Thaws it.
    pub async fn unpause(&self, key: &str) -> Result<()> {
        soon("unpause")
    }
    /// Gives it another name.
    pub async fn rename(&self, key: &str, name: &str) -> Result<()> {
        soon("rename")
    }
    /// Removes it, with its anonymous volumes when `volumes`; kills it first when `force`.
    pub async fn remove(&self, key: &str, force: bool, volumes: bool) -> Result<()> {
        soon("remove")
    }
    /// Waits; the outer future resolves once the wait is registered, the inner when it is over.
    pub async fn wait(
        &self,
        key: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = ExitView> + Send + 'static> {
        soon::<std::future::Ready<ExitView>>("wait")
    }
    /// Every container, newest first; only running (and paused) ones unless `all`.
    pub fn list(&self, all: bool) -> Vec<ContainerView> {
        Vec::new()
    }
    /// One container; with its sizes when `size`.
    pub async fn inspect(&self, key: &str, size: bool) -> Result<ContainerView> {
        soon("inspect")
    }
    /// Joins its streams; also before its start.
    pub async fn attach(&self, key: &str, options: AttachOptions) -> Result<AttachStream> {
        soon("attach")
    }
    /// Its log; whether it has a terminal, and the bytes (framed when it has none).
    pub async fn logs(&self, key: &str, options: LogOptions) -> Result<(bool, ByteStream)> {
        soon("logs")
    }
    /// Sets the size of its terminal.
    pub async fn resize(&self, key: &str, rows: u16, columns: u16) -> Result<()> {
        soon("resize")
    }
    /// Its processes, as `ps` with these arguments would show them: titles and rows.
    pub async fn top(&self, key: &str, arguments: &str) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        soon("top")
    }
    /// What differs from the image.
    pub async fn changes(&self, key: &str) -> Result<Vec<(ChangeKind, String)>> {
        soon("changes")
    }
    /// Its file system as a tar.
    pub async fn export(&self, key: &str) -> Result<ByteStream> {
        soon("export")
    }
    /// Describes a path inside.
    pub async fn archive_stat(&self, key: &str, path: &str) -> Result<PathStat> {
        soon("archive")
    }
    /// A path inside as a tar.
    pub async fn archive_get(&self, key: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        soon("archive")
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
        soon("archive")
    }
    /// Changes limits and restart policy while it runs; warnings.
    pub async fn update(
        &self,
        key: &str,
        resources: Resources,
        restart: Option<RestartPolicy>,
    ) -> Result<Vec<String>> {
        soon("update")
    }
    /// Removes stopped containers that `keep` does not spare.
    pub async fn prune(&self, keep: impl Fn(&ContainerView) -> bool + Send) -> Result<Pruned> {
        soon("prune")
    }
}
