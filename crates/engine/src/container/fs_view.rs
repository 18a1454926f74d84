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

/// Fills an empty volume with what the image has at `target`; nothing when it has no
/// directory there.
pub(crate) fn copy_up(layers: &[PathBuf], target: &str, volume: &Path) -> Result<()> {
    let view = read_only(layers)?;
    let Ok(source) = view.subdir(Path::new(target)) else { return Ok(()) };
    let destination = RootDir::open(volume)?;
    let stat = view.stat(Path::new(target))?;
    let failed = |error: std::io::Error| Error::kernel(format!("{}: {error}", volume.display()));
    std::os::unix::fs::chown(volume, Some(stat.st_uid), Some(stat.st_gid)).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(stat.st_mode & 0o7777);
    std::fs::set_permissions(volume, mode).map_err(failed)?;
    copy_tree(&source, &destination)
        .map_err(|error| Error::kernel(format!("copy of {target} into its volume: {error}")))
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
