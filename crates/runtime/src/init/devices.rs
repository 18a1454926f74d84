//! `/dev`: the nodes every container has, those of the spec, links, and the console.
//!
//! In a user namespace no node can be made, so the host's are bound; what is bound is
//! checked to be the device it should be. Nothing of the image's `/dev` is trusted.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use capsa_oci::runtime::{Device, NamespaceKind};
use capsa_sys::Error as SysError;
use capsa_sys::mount;
use capsa_sys::root::RootDir;
use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::Plan;
use crate::furniture::{DEFAULT_DEVICES, extra_devices};

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Fills `/dev`; `sent` are the extra nodes that the parent made for a user namespace.
pub(super) fn fill(plan: &Plan<'_>, root: &RootDir, sent: Vec<OwnedFd>) -> capsa_sys::Result<()> {
    let dev = root.mkdir_all(Path::new("dev"), Mode::from_raw_mode(0o755))?;
    let bind = plan.namespaces.has(NamespaceKind::User);
    for (name, major, minor) in DEFAULT_DEVICES {
        let device = rustix::fs::makedev(major, minor);
        if bind { bind_host(&dev, name, device)? } else { make(&dev, name, device)? }
    }
    let mut sent = sent.into_iter();
    for device in extra_devices(plan.spec) {
        match sent.next() {
            Some(node) => bind_at(root, &device.path, &node)?,
            None => make_at(root, device)?,
        }
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(SysError::new("symlink", format!("/dev/{name}"), e)),
        }
    }
    Ok(())
}

/// `/dev/console` is the container's terminal.
pub(super) fn bind_console(root: &RootDir, terminal: &OwnedFd) -> capsa_sys::Result<()> {
    let copy = mount::clone_fd(terminal.as_fd(), false)?;
    bind_at(root, "/dev/console", &copy)
}

fn make(dev: &OwnedFd, name: &str, device: Dev) -> capsa_sys::Result<()> {
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    match rustix::fs::mknodat(dev, name, kind, mode, device) {
        Ok(()) => Ok(()),
        // A /dev of the image: the node in it is used only if it is the right one.
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(dev, name, AtFlags::SYMLINK_NOFOLLOW);
            check(name, device, found)
        }
        Err(e) => Err(SysError::new("mknod", format!("/dev/{name}"), e)),
    }
}

fn bind_host(dev: &OwnedFd, name: &str, device: Dev) -> capsa_sys::Result<()> {
    let node = mount::clone_path(&Path::new("/dev").join(name), false)?;
    check(name, device, rustix::fs::fstat(&node))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666))
        .map_err(|e| SysError::new("open", format!("/dev/{name}"), e))?;
    mount::attach(node.as_fd(), target.as_fd())
}

fn check(name: &str, device: Dev, found: Result<rustix::fs::Stat, Errno>) -> capsa_sys::Result<()> {
    let failed = |e| SysError::new("stat", format!("/dev/{name}"), e);
    let stat = found.map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let right = kind == FileType::CharacterDevice && stat.st_rdev == device;
    if right { Ok(()) } else { Err(failed(Errno::NODEV)) }
}

fn bind_at(root: &RootDir, path: &str, node: &OwnedFd) -> capsa_sys::Result<()> {
    let path = Path::new(path);
    if let Some(parent) = path.parent() {
        root.mkdir_all(parent, Mode::from_raw_mode(0o755))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let target = root.open_in(path, flags, Mode::from_raw_mode(0o666))?;
    mount::attach(node.as_fd(), target.as_fd())
}

fn make_at(root: &RootDir, device: &Device) -> capsa_sys::Result<()> {
    let path = Path::new(&device.path);
    let (kind, number) = kind_of(device)?;
    if let Some(parent) = path.parent() {
        root.mkdir_all(parent, Mode::from_raw_mode(0o755))?;
    }
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    match root.mknod(path, kind, mode, number) {
        Err(error) if error.errno == Errno::EXIST => return Ok(()),
        made => made?,
    }
    let node = root.open_in(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    own(&node, device.uid.unwrap_or(0), device.gid.unwrap_or(0))
}

/// Gives the node behind an `O_PATH` descriptor to an owner.
pub(crate) fn own(node: &OwnedFd, uid: u32, gid: u32) -> capsa_sys::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(node, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(|e| SysError::new("chown", "device", e))
}

/// File type and number of a device of the spec.
pub(crate) fn kind_of(device: &Device) -> capsa_sys::Result<(FileType, Dev)> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return Err(SysError::new("mknod", &device.path, Errno::INVAL)),
    };
    let number = |n: Option<i64>| u32::try_from(n.unwrap_or(0)).unwrap_or(0);
    Ok((kind, rustix::fs::makedev(number(device.major), number(device.minor))))
}
