//! The container's root file system, as a detached mount.
//!
//! Layers and the writable top lie on disk with the ids of the image. With a user
//! namespace they are shown to overlayfs through its mapping, and the overlay is made
//! under the file system ids of the container's root: without that the kernel finds
//! host uid 0 unmapped in its own work directory and mounts read-only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_sys::mount::{self, Attrs, Change, Filesystem, Propagation};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result, Stage};
use crate::protocol::RootfsPlan;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The mapping under which a root file system is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping<'a> {
    /// The container's user namespace.
    pub(crate) userns: BorrowedFd<'a>,
    /// The host's ids of its root.
    pub(crate) root: (u32, u32),
}

/// A detached root and what must stay open for a while.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// The mount.
    pub(crate) mount: OwnedFd,
    /// Idmapped clones that overlayfs has taken copies of. Dropping one waits for a
    /// grace period of the kernel, so it's done when nobody waits.
    pub(crate) leftovers: Vec<OwnedFd>,
}

/// Makes the root that `plan` describes.
pub(crate) fn build(plan: &RootfsPlan, mapping: Option<Mapping<'_>>) -> Result<Rootfs> {
    match plan {
        RootfsPlan::Directory(path) => directory(path),
        RootfsPlan::Overlay { lowers, top, volatile } => {
            let mut sources = Sources { mapping, clones: Vec::new() };
            let mount = overlay(&mut sources, lowers, top, *volatile).stage("rootfs")?;
            let leftovers = sources.clones.into_iter().map(|(_, clone)| clone).collect();
            Ok(Rootfs { mount, leftovers })
        }
    }
}

fn directory(path: &Path) -> Result<Rootfs> {
    let mount = mount::clone_path(path, true).stage("rootfs")?;
    let private =
        Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
    mount::change(mount.as_fd(), &private).stage("rootfs")?;
    let found = rustix::fs::fstat(&mount);
    let kind = found.map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(rustix::fs::FileType::Directory) {
        return Err(Error::invalid(path.display().to_string(), "not a directory"));
    }
    Ok(Rootfs { mount, leftovers: Vec::new() })
}

/// Directories as overlayfs shall see them.
struct Sources<'a> {
    mapping: Option<Mapping<'a>>,
    /// One idmapped clone per parent directory: layers have one in common.
    clones: Vec<(PathBuf, OwnedFd)>,
}

impl Sources<'_> {
    /// Opens the directory `path`, through the mapping if there is one.
    fn open(&mut self, path: &Path) -> capsa_sys::Result<OwnedFd> {
        let failed = |e: Errno| capsa_sys::Error::new("open", path.display(), e);
        let Some(mapping) = self.mapping else {
            return rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed);
        };
        let split = path.parent().zip(path.file_name());
        let (parent, name) = split.ok_or_else(|| failed(Errno::INVAL))?;
        let known = self.clones.iter().position(|(of, _)| of == parent);
        let at = match known {
            Some(at) => at,
            None => {
                let clone = mount::clone_path(parent, false)?;
                let idmap = Change { idmap: Some(mapping.userns), ..Change::default() };
                mount::change(clone.as_fd(), &idmap)?;
                self.clones.push((parent.to_owned(), clone));
                self.clones.len() - 1
            }
        };
        rustix::fs::openat(&self.clones[at].1, name, DIRECTORY, Mode::empty()).map_err(failed)
    }
}

fn overlay(
    sources: &mut Sources<'_>,
    lowers: &[PathBuf],
    top: &Path,
    volatile: bool,
) -> capsa_sys::Result<OwnedFd> {
    let fs = Filesystem::open("overlay")?;
    for lower in lowers {
        set_dir(&fs, "lowerdir+", &sources.open(lower)?)?;
    }
    let upper = sources.open(&top.join("upper"))?;
    let work = sources.open(&top.join("work"))?;
    forget_volatile(top);
    set_dir(&fs, "upperdir", &upper)?;
    set_dir(&fs, "workdir", &work)?;
    if volatile {
        fs.flag("volatile")?;
    }
    match sources.mapping {
        Some(mapping) => {
            let (uid, gid) = mapping.root;
            mount::with_fs_ids(uid, gid, || fs.mount(Attrs::empty()))
        }
        None => fs.mount(Attrs::empty()),
    }
}

/// Kernels before 6.13 take layers as paths only; a descriptor has one.
fn set_dir(fs: &Filesystem, key: &str, dir: &OwnedFd) -> capsa_sys::Result<()> {
    match fs.set_fd(key, dir.as_fd()) {
        Err(error) if error.errno == Errno::INVAL => {
            fs.set(key, &format!("/proc/self/fd/{}", dir.as_raw_fd()))
        }
        done => done,
    }
}

/// A mount with `volatile` leaves a mark that makes the next mount fail. Whoever asks
/// for a mount has decided that the top is worth using.
fn forget_volatile(top: &Path) {
    let mark = top.join("work").join("work/incompat/volatile");
    if rustix::fs::unlinkat(CWD, mark.join("dirty"), AtFlags::empty()).is_ok() {
        let _ = rustix::fs::unlinkat(CWD, mark, AtFlags::REMOVEDIR);
    }
}
