//! A container's file system as the engine sees it: its layers as one tree.
//!
//! Nothing is ever attached to the daemon's mount namespace: a view is a detached
//! overlay, gone when its descriptor is closed, and every path in it is resolved
//! below that descriptor.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use capsa_sys::mount::{Attrs, Filesystem};
use capsa_sys::root::RootDir;
use rustix::fs::{FileType, Mode, OFlags};

use crate::{Error, Result};

/// An account file longer than this is none.
const TEXT_MAX: u64 = 4 * 1024 * 1024;

/// The tree of `layers` (topmost first), to be read.
pub(crate) fn read_only(layers: &[PathBuf]) -> Result<RootDir> {
    if let [only] = layers {
        return Ok(RootDir::open(only)?);
    }
    let overlay = Filesystem::open("overlay")?;
    for layer in layers {
        overlay.set_fd("lowerdir+", RootDir::open(layer)?.as_fd())?;
    }
    Ok(RootDir::from_fd(overlay.mount(Attrs::empty())?))
}

/// The tree of a container that does not run, to be read and written: what is written
/// lands in its upper directory.
pub(crate) fn writable(rootfs: &Path, layers: &[PathBuf]) -> Result<RootDir> {
    let overlay = Filesystem::open("overlay")?;
    for layer in layers {
        overlay.set_fd("lowerdir+", RootDir::open(layer)?.as_fd())?;
    }
    overlay.set_fd("upperdir", RootDir::open(&rootfs.join("upper"))?.as_fd())?;
    overlay.set_fd("workdir", RootDir::open(&rootfs.join("work"))?.as_fd())?;
    Ok(RootDir::from_fd(overlay.mount(Attrs::empty())?))
}

/// A small text file found in a stack of directories (topmost first) without mounting
/// them; empty when there is none, as Docker takes it.
pub(crate) fn read_text(stack: &[PathBuf], path: &str) -> String {
    for dir in stack {
        let Ok(root) = RootDir::open(dir) else { continue };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = root.open_in(Path::new(path), flags, Mode::empty()) else { continue };
        let mut text = String::new();
        let plain = rustix::fs::fstat(&fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if plain {
            // What is no text has no entries.
            let _ = File::from(fd).take(TEXT_MAX).read_to_string(&mut text);
        }
        return text;
    }
    String::new()
}

/// A directory of an image, to be copied.
pub(crate) struct Content {
    target: String,
    tree: RootDir,
    owner: (u32, u32),
    mode: u32,
}

impl Content {
    /// What the image has at `target`; `None` when it has no directory there.
    pub(crate) fn at(layers: &[PathBuf], target: &str) -> Result<Option<Self>> {
        let view = read_only(layers)?;
        let Ok(tree) = view.subdir(Path::new(target)) else { return Ok(None) };
        let stat = view.stat(Path::new(target))?;
        let (owner, mode) = ((stat.st_uid, stat.st_gid), stat.st_mode & 0o7777);
        Ok(Some(Self { target: target.to_owned(), tree, owner, mode }))
    }

    /// Makes an empty directory the same as this one.
    pub(crate) fn copy_to(&self, dir: &Path) -> Result<()> {
        let destination = RootDir::open(dir)?;
        let failed = |error: std::io::Error| Error::kernel(format!("{}: {error}", dir.display()));
        let (uid, gid) = self.owner;
        std::os::unix::fs::chown(dir, Some(uid), Some(gid)).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(self.mode);
        std::fs::set_permissions(dir, mode).map_err(failed)?;
        copy_tree(&self.tree, &destination).map_err(|error| {
            Error::kernel(format!("copy of {} into its volume: {error}", self.target))
        })
    }
}

/// Copies a tree with owners, times and attributes, as a tar that is read while it is
/// written.
fn copy_tree(source: &RootDir, destination: &RootDir) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let source = source.try_clone().map_err(|error| error.to_string())?;
    let packing =
        std::thread::spawn(move || capsa_image::pack(&source, Path::new(""), writer).map(drop));
    let options = capsa_image::UnpackOptions::default();
    let limits = capsa_image::Limits::default();
    let reader = std::io::BufReader::new(reader);
    let unpacked = capsa_image::unpack_into(reader, destination, Path::new("."), options, &limits);
    let packed = packing.join().map_err(|_| "the reading thread panicked".to_owned())?;
    unpacked.map_err(|error| error.to_string())?;
    packed.map_err(|error| error.to_string())
}
