//! What is kept of a container between two calls: a directory `<root>/<id>` with
//!
//! ```text
//!   state.json   the record, replaced whole, never changed in place
//!   spec.json    the config as it was when the container was made
//!   start.fifo   there as long as the program has not been started
//! ```
//!
//! The directory's mkdir is what reserves the id. Whether the container runs is asked of
//! the kernel each time: its pid counts only together with its start time.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use capsa_oci::runtime::{RuntimeSpec, State};
use capsa_sys::atomic::{self, Durability};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::clock;
use crate::cgroup::Cgroup;
use crate::{Error, Result};

/// Version of the specification that we follow.
pub(super) const OCI_VERSION: &str = "1.2.1";

/// A container as kept on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    pub(super) id: String,
    /// Of its first process; 0 until there is one.
    pub(super) pid: u32,
    /// When that was started, in the kernel's ticks since boot.
    pub(super) start_ticks: u64,
    /// Its namespaces, root and mounts are made.
    pub(super) ready: bool,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub(super) created: String,
    /// Path below every cgroup mount.
    pub(super) cgroup: String,
    #[serde(skip)]
    pub(super) dir: PathBuf,
}

/// Where a container is in its life, as the OCI names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The word of the specification (`paused` is everyone's addition).
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Record {
    /// Reserves `id` below `root` and keeps `spec`.
    pub(super) fn reserve(
        root: &Path,
        id: &str,
        bundle: &Path,
        spec: &RuntimeSpec,
    ) -> Result<Self> {
        check_id(id)?;
        let failed = |path: &Path, e: std::io::Error| {
            Error::from(capsa_sys::Error::from_io("mkdir", path.display(), &e))
        };
        fs::create_dir_all(root).map_err(|e| failed(root, e))?;
        let dir = root.join(id);
        match rustix::fs::mkdir(&dir, rustix::fs::Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::invalid(
                    format!("container {id}"),
                    "a container with this id exists",
                ));
            }
            Err(errno) => return Err(failed(&dir, errno.into())),
        }
        let record = Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            created: clock::now(),
            dir,
            ..Self::default()
        };
        record.save_spec(spec)?;
        Ok(record)
    }

    /// The container `id` below `root`.
    pub(super) fn load(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let dir = root.join(id);
        match read(&dir.join("state.json"))? {
            Some(record) => Ok(Self { dir, ..record }),
            None => Err(Error::invalid(format!("container {id}"), "container does not exist")),
        }
    }

    /// All containers below `root`, by id; unreadable ones are left out.
    pub(super) fn all(root: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<_> = names.filter_map(|id| Self::load(root, &id).ok()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Replaces the record on disk.
    pub(super) fn save(&self) -> Result<()> {
        write(&self.dir, "state.json", self)
    }

    /// Replaces the kept config.
    pub(super) fn save_spec(&self, spec: &RuntimeSpec) -> Result<()> {
        write(&self.dir, "spec.json", spec)
    }

    /// The config as it was when the container was made, with later updates.
    pub(super) fn spec(&self) -> Result<RuntimeSpec> {
        let path = self.dir.join("spec.json");
        read(&path)?.ok_or_else(|| Error::invalid(path.display().to_string(), "it is gone"))
    }

    /// Where the container waits for its start.
    pub(super) fn start_fifo(&self) -> PathBuf {
        self.dir.join("start.fifo")
    }

    /// Its cgroup, unless that is gone.
    pub(super) fn open_cgroup(&self) -> Option<Cgroup> {
        Cgroup::open(&self.cgroup).ok()
    }

    /// Notes the first process.
    pub(super) fn set_pid(&mut self, pid: u32) {
        self.pid = pid;
        self.start_ticks = start_ticks(pid).unwrap_or(0);
    }

    /// Its first process is alive.
    pub(super) fn is_alive(&self) -> bool {
        self.pid != 0 && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Where it is in its life, now.
    pub(super) fn status(&self) -> Status {
        if !self.is_alive() {
            return if self.pid == 0 { Status::Creating } else { Status::Stopped };
        }
        if !self.ready {
            return Status::Creating;
        }
        if self.start_fifo().exists() {
            return Status::Created;
        }
        match self.open_cgroup().is_some_and(|cgroup| cgroup.is_frozen()) {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    /// As hooks and `state` show it.
    pub(super) fn state(&self, status: Status, spec: &RuntimeSpec) -> State {
        State {
            oci_version: OCI_VERSION.to_owned(),
            id: self.id.clone(),
            status: status.word().to_owned(),
            pid: Some(if status == Status::Stopped { 0 } else { self.pid }),
            bundle: self.bundle.display().to_string(),
            annotations: spec.annotations.clone(),
        }
    }

    /// Forgets the container.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(capsa_sys::Error::from_io("rmdir", self.dir.display(), &e).into())
            }
            _ => Ok(()),
        }
    }
}

/// An id becomes a directory name: letters, digits and `_+-.`, and no name of the directory itself.
pub(super) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || !id.chars().all(allowed) || id.len() > 255 {
        return Err(Error::invalid(format!("container id {id:?}"), "invalid id format"));
    }
    Ok(())
}

/// When a process that is alive was started, in ticks since boot. proc_pid_stat(5).
fn start_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold anything, but the last parenthesis is its end.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| alive)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(capsa_sys::Error::from_io("read", path.display(), &e).into()),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| Error::invalid(path.display().to_string(), e.to_string()))
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::invalid(name, e.to_string()))?;
    Ok(atomic::write(dir, name, &bytes, Durability::Process)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_root() {
        for good in ["a", "web_1.2+3-4", "..."] {
            check_id(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let mut record = Record::default();
        assert!(!record.is_alive());
        record.set_pid(std::process::id());
        assert!(record.start_ticks > 0 && record.is_alive());
        record.start_ticks += 1;
        assert!(!record.is_alive());
    }
}
