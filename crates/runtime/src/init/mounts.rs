//! The mounts of the spec: made detached while the root is not there yet, then
//! attached in their order.
//!
//! Bind mounts come as descriptors from the parent, who can reach their sources. Every
//! target is looked up inside the container's root and used by its descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::Mount;
use capsa_sys::mount::{self, Attrs, Change, Filesystem};
use capsa_sys::root::RootDir;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::copy_up::copy_up;
use super::options::MountOptions;
use super::sync::Join;
use super::{Plan, cgroups};
use crate::error::{Error, Result};
use crate::furniture;

/// The mounts of one container.
pub(super) struct Mounts<'a> {
    items: Vec<Item<'a>>,
    /// How many of the parent's descriptors are devices.
    device_count: usize,
    devices: Vec<OwnedFd>,
}

struct Item<'a> {
    mount: &'a Mount,
    options: MountOptions,
    source: Source,
}

enum Source {
    /// The parent sends it.
    Awaited,
    /// Made here, not attached.
    Detached(OwnedFd),
    /// The cgroup tree, put together in place.
    Cgroups,
}

/// Makes all mounts that need nothing from outside.
pub(super) fn prepare<'a>(plan: &Plan<'a>) -> Result<Mounts<'a>> {
    let mut items = Vec::with_capacity(plan.spec.mounts.len());
    for mount in &plan.spec.mounts {
        let options = MountOptions::of(mount);
        let source = match mount.kind.as_deref() {
            _ if options.bind.is_some() => Source::Awaited,
            Some("cgroup" | "cgroup2") => Source::Cgroups,
            kind => Source::Detached(make(mount, kind.unwrap_or_default(), &options)?),
        };
        items.push(Item { mount, options, source });
    }
    let device_count = furniture::sent_devices(plan.spec, plan.namespaces).count();
    Ok(Mounts { items, device_count, devices: Vec::new() })
}

fn make(mount: &Mount, kind: &str, options: &MountOptions) -> Result<OwnedFd> {
    let made = (|| {
        let fs = Filesystem::open(kind)?;
        if let Some(source) = mount.source.as_deref().filter(|source| !source.is_empty()) {
            fs.set("source", source)?;
        }
        for (key, value) in &options.data {
            match value {
                Some(value) => fs.set(key, value)?,
                None => fs.flag(key)?,
            }
        }
        fs.mount(options.set - late(mount))
    })();
    made.map_err(|source| named(mount, source))
}

/// A tmpfs gets mount points and devices inside before it becomes read-only.
fn late(mount: &Mount) -> Attrs {
    if mount.kind.as_deref() == Some("tmpfs") { Attrs::RDONLY } else { Attrs::empty() }
}

impl Mounts<'_> {
    /// Descriptors that the parent has to send, besides the root.
    pub(super) fn expected_fds(&self) -> usize {
        let awaited = |item: &&Item<'_>| matches!(item.source, Source::Awaited);
        self.items.iter().filter(awaited).count() + self.device_count
    }

    /// Takes them.
    pub(super) fn take(&mut self, mut fds: impl Iterator<Item = OwnedFd>) {
        for item in &mut self.items {
            if matches!(item.source, Source::Awaited)
                && let Some(fd) = fds.next()
            {
                item.source = Source::Detached(fd);
            }
        }
        self.devices = fds.collect();
    }

    /// Attaches all of them under `root`.
    pub(super) fn attach(&self, root: &RootDir, cgroup: &Join) -> Result<()> {
        for item in &self.items {
            let attached = match &item.source {
                Source::Awaited => return Err(Error::InitGone),
                Source::Detached(fd) => attach_one(root, item, fd),
                Source::Cgroups => {
                    let target = target(root, &item.mount.destination, true);
                    target.and_then(|t| cgroups::attach(t, &item.options, cgroup))
                }
            };
            attached.map_err(|source| named(item.mount, source))?;
        }
        self.seal(root)
    }

    /// Makes read-only what had to stay writable until now; `/dev` stays for longer.
    fn seal(&self, root: &RootDir) -> Result<()> {
        for item in &self.items {
            let wanted = item.options.set & late(item.mount);
            if !wanted.is_empty() && !is_dev(item.mount) {
                seal_one(root, item.mount, wanted).map_err(|source| named(item.mount, source))?;
            }
        }
        Ok(())
    }

    /// `/dev` is ours to fill, not the host's.
    pub(super) fn has_own_dev(&self) -> bool {
        !self.items.iter().any(|item| is_dev(item.mount) && item.options.bind.is_some())
    }

    /// The device nodes that the parent has sent.
    pub(super) fn into_devices(self) -> Vec<OwnedFd> {
        self.devices
    }
}

/// Makes `/dev` read-only when the spec says so, once it is full.
pub(super) fn seal_dev(plan: &Plan<'_>, root: &RootDir) -> Result<()> {
    for mount in plan.spec.mounts.iter().filter(|mount| is_dev(mount)) {
        let wanted = MountOptions::of(mount).set & late(mount);
        if !wanted.is_empty() {
            seal_one(root, mount, wanted).map_err(|source| named(mount, source))?;
        }
    }
    Ok(())
}

fn seal_one(root: &RootDir, mount: &Mount, set: Attrs) -> capsa_sys::Result<()> {
    let at = root.open_in(Path::new(&mount.destination), OFlags::PATH, Mode::empty())?;
    mount::change(at.as_fd(), &Change { set, ..Change::default() })
}

fn is_dev(mount: &Mount) -> bool {
    Path::new(&mount.destination) == Path::new("/dev")
}

fn attach_one(root: &RootDir, item: &Item<'_>, fd: &OwnedFd) -> capsa_sys::Result<()> {
    let destination = item.mount.destination.as_str();
    let directory = item.options.bind.is_none() || is_directory(fd)?;
    if let (None, Some((propagation, depth))) = (item.options.bind, item.options.propagation) {
        let change = Change {
            propagation: Some(propagation),
            recursive: depth.is_all(),
            ..Change::default()
        };
        mount::change(fd.as_fd(), &change)?;
    }
    let target = match item.mount.kind.as_deref() {
        Some("proc" | "sysfs") => real_directory(root, destination)?,
        _ => target(root, destination, directory)?,
    };
    if item.options.copy_up {
        let covered = root.open_in(Path::new(destination), OFlags::DIRECTORY, Mode::empty())?;
        copy_up(covered.as_fd(), fd.as_fd())?;
    }
    mount::attach(fd.as_fd(), target.as_fd())
}

/// What is at `destination`, made if there is nothing.
fn target(root: &RootDir, destination: &str, directory: bool) -> capsa_sys::Result<OwnedFd> {
    let path = Path::new(destination);
    match root.open_in(path, OFlags::PATH, Mode::empty()) {
        Err(error) if error.errno == Errno::NOENT => {}
        found => return found,
    }
    let mode = Mode::from_raw_mode(0o755);
    if directory {
        return root.mkdir_all(path, mode);
    }
    if let Some(parent) = path.parent() {
        root.mkdir_all(parent, mode)?;
    }
    root.open_in(path, OFlags::WRONLY | OFlags::CREATE, mode)
}

/// A kernel file system does not go where a link of the image leads.
fn real_directory(root: &RootDir, destination: &str) -> capsa_sys::Result<OwnedFd> {
    let path = Path::new(destination);
    match root.open_in(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty()) {
        Err(error) if error.errno == Errno::NOENT => {
            root.mkdir_all(path, Mode::from_raw_mode(0o755))
        }
        found => found,
    }
}

fn is_directory(fd: &OwnedFd) -> capsa_sys::Result<bool> {
    rustix::fs::fstat(fd)
        .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        .map_err(|e| capsa_sys::Error::new("fstat", "mount", e))
}

/// An error tells which mount of the spec it is about.
fn named(mount: &Mount, source: capsa_sys::Error) -> Error {
    let from = mount.source.as_deref().unwrap_or_default();
    let object = format!("{} (mounting {from:?} on {:?})", source.object, mount.destination);
    Error::Step { stage: "mount", source: capsa_sys::Error { object, ..source } }
}
