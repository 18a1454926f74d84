//! What the parent brings into a container's tree because only the host can reach or
//! make it: bind mounts, and device nodes for a user namespace.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_oci::runtime::{Device, Mount, NamespaceKind, RuntimeSpec};
use capsa_sys::mount::{self, Attrs, Change, Propagation};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;

use crate::error::{Error, Result, Stage};
use crate::init::options::{Depth, MountOptions};
use crate::init::{kind_of, own};
use crate::namespaces::{IdMaps, Namespaces};

/// The nodes in every container's `/dev`: name, major, minor.
pub(crate) const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The devices of the spec that are not among the default ones.
pub(crate) fn extra_devices(spec: &RuntimeSpec) -> impl Iterator<Item = &Device> {
    let devices = spec.linux.as_ref().map(|linux| linux.devices.as_slice()).unwrap_or_default();
    let default = |path: &str| {
        DEFAULT_DEVICES.iter().any(|(name, ..)| path.strip_prefix("/dev/") == Some(name))
    };
    devices.iter().filter(move |device| !default(&device.path))
}

/// Those that the parent makes and sends: all, in a user namespace.
pub(crate) fn sent_devices<'a>(
    spec: &'a RuntimeSpec,
    namespaces: &Namespaces,
) -> impl Iterator<Item = &'a Device> {
    let sent = namespaces.has(NamespaceKind::User);
    extra_devices(spec).filter(move |_| sent)
}

/// Detached mounts of the sources of all bind mounts, in the order of the spec.
/// `userns` is the container's, if it has one of its own.
pub(crate) fn binds(spec: &RuntimeSpec, userns: Option<BorrowedFd<'_>>) -> Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for mount in &spec.mounts {
        let options = MountOptions::of(mount);
        if let Some(depth) = options.bind {
            found.push(bind(mount, &options, depth, userns)?);
        }
    }
    Ok(found)
}

fn bind(
    mount: &Mount,
    options: &MountOptions,
    depth: Depth,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Error::invalid(&mount.destination, "a mapping of its own for one mount"));
    }
    let source = mount.source.as_deref().unwrap_or_default();
    let made = (|| {
        let clone = mount::clone_path(Path::new(source), depth.is_all())?;
        settle(&clone, options, depth)?;
        if let (Some(userns), Some(idmap)) = (userns, options.idmap) {
            show_ids(&clone, userns, idmap)?;
        }
        Ok(clone)
    })();
    made.map_err(|source: capsa_sys::Error| {
        let object = format!("{} (binding {:?})", source.object, mount.destination);
        Error::Step { stage: "mount", source: capsa_sys::Error { object, ..source } }
    })
}

/// Attributes and propagation. Without a word about propagation nothing passes between
/// the container and the host.
fn settle(clone: &OwnedFd, options: &MountOptions, depth: Depth) -> capsa_sys::Result<()> {
    let (propagation, whole) = options.propagation.unwrap_or((Propagation::Private, depth));
    if whole.is_all() && depth.is_all() {
        let change =
            Change { propagation: Some(propagation), recursive: true, ..Change::default() };
        mount::change(clone.as_fd(), &change)?;
    }
    let change = Change {
        set: options.set,
        clear: options.clear,
        propagation: Some(propagation),
        ..Change::default()
    };
    mount::change(clone.as_fd(), &change)?;
    if options.set_all.is_empty() && options.clear_all.is_empty() {
        return Ok(());
    }
    let all = Change {
        set: options.set_all,
        clear: options.clear_all,
        recursive: true,
        ..Change::default()
    };
    mount::change(clone.as_fd(), &all)
}

/// A file system that knows no idmapped mounts (NFS, FUSE, overlayfs) is bound with the
/// ids it has: what the container's root may do there is what "nobody" may.
fn show_ids(clone: &OwnedFd, userns: BorrowedFd<'_>, idmap: Depth) -> capsa_sys::Result<()> {
    let change = Change { idmap: Some(userns), recursive: idmap.is_all(), ..Change::default() };
    match mount::change(clone.as_fd(), &change) {
        Err(error) if error.errno == Errno::INVAL => Ok(()),
        done => done,
    }
}

/// Device nodes on disk while their mounts are not attached: an unlinked node cannot be
/// mounted any more, a mounted one can be unlinked. Removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    paths: Vec<PathBuf>,
}

impl Nodes {
    /// Removes them: they are attached.
    pub(crate) fn clear(&mut self) {
        for path in self.paths.drain(..) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Device nodes for a container that cannot make any itself: made in `dir`, a directory
/// of ours, and cloned as mounts.
pub(crate) fn devices(
    spec: &RuntimeSpec,
    namespaces: &Namespaces,
    ids: &IdMaps,
    dir: &Path,
) -> Result<(Vec<OwnedFd>, Nodes)> {
    let mut nodes = Nodes::default();
    let mut mounts = Vec::new();
    for device in sent_devices(spec, namespaces) {
        let path = dir.join(format!("device-{}", mounts.len()));
        let _ = fs::remove_file(&path);
        nodes.paths.push(path.clone());
        mounts.push(device_mount(device, ids, &path).stage("devices")?);
    }
    Ok((mounts, nodes))
}

fn device_mount(device: &Device, ids: &IdMaps, path: &Path) -> capsa_sys::Result<OwnedFd> {
    let (kind, number) = kind_of(device)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let failed = |e| capsa_sys::Error::new("mknod", &device.path, e);
    rustix::fs::mknodat(CWD, path, kind, mode, number).map_err(failed)?;
    let clone = mount::clone_path(path, false)?;
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    let (uid, gid) = ids.host_ids(uid, gid).ok_or_else(|| failed(Errno::OVERFLOW))?;
    own(&clone, uid, gid)?;
    // Whatever umask the daemon has.
    rustix::fs::chmod(path, mode).map_err(failed)?;
    let change = Change {
        set: Attrs::NOSUID | Attrs::NOEXEC,
        clear: Attrs::NODEV,
        propagation: Some(Propagation::Private),
        ..Change::default()
    };
    mount::change(clone.as_fd(), &change)?;
    Ok(clone)
}
