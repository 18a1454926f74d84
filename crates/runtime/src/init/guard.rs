//! What of the kernel's file systems a container cannot read or write, and the kernel
//! parameters of its namespaces.
//!
//! A mask is never an inode of the container: a file is hidden by the host's
//! `/dev/null`, a directory by an empty tmpfs of ours.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use capsa_sys::Error as SysError;
use capsa_sys::mount::{self, Attrs, Change, Filesystem};
use capsa_sys::root::RootDir;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Plan, mounts};
use crate::error::{Error, Result, Stage};

/// Read-only paths, masks, and the read-only root.
pub(super) fn protect(plan: &Plan<'_>, root: &RootDir) -> Result<()> {
    let linux = plan.spec.linux.as_ref();
    for path in linux.map(|l| l.readonly_paths.as_slice()).unwrap_or_default() {
        make_readonly(root, Path::new(path)).stage("readonly path")?;
    }
    mask_all(root, linux.map(|l| l.masked_paths.as_slice()).unwrap_or_default())
        .stage("masked path")?;
    mounts::seal_dev(plan, root)?;
    if plan.spec.root.as_ref().is_some_and(|root| root.readonly) {
        let readonly = Change { set: Attrs::RDONLY, ..Change::default() };
        mount::change(root.as_fd(), &readonly).stage("rootfs")?;
    }
    Ok(())
}

fn make_readonly(root: &RootDir, path: &Path) -> capsa_sys::Result<()> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let copy = mount::clone_fd(target.as_fd(), true)?;
    let readonly = Change { set: Attrs::RDONLY, recursive: true, ..Change::default() };
    mount::change(copy.as_fd(), &readonly)?;
    mount::attach(copy.as_fd(), target.as_fd())
}

fn mask_all(root: &RootDir, paths: &[String]) -> capsa_sys::Result<()> {
    // Attached masks of directories are copies of the first one.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(target) = existing(root, Path::new(path))? else { continue };
        let stat = rustix::fs::fstat(&target).map_err(|e| SysError::new("fstat", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let null = null_device()?;
            mount::attach(null.as_fd(), target.as_fd())?;
            continue;
        }
        let cover = match &empty {
            Some(first) => mount::clone_fd(first.as_fd(), false)?,
            None => empty_directory()?,
        };
        mount::attach(cover.as_fd(), target.as_fd())?;
        empty.get_or_insert(cover);
    }
    Ok(())
}

fn existing(root: &RootDir, path: &Path) -> capsa_sys::Result<Option<OwnedFd>> {
    match root.open_in(path, OFlags::PATH, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The host's, while the host's tree can still be reached.
fn null_device() -> capsa_sys::Result<OwnedFd> {
    let null = mount::clone_path(Path::new("/dev/null"), false)?;
    let failed = |e| SysError::new("stat", "/dev/null", e);
    let stat = rustix::fs::fstat(&null).map_err(failed)?;
    let right = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if right { Ok(null) } else { Err(failed(Errno::NODEV)) }
}

fn empty_directory() -> capsa_sys::Result<OwnedFd> {
    let fs = Filesystem::open("tmpfs")?;
    fs.set("size", "0")?;
    fs.set("nr_inodes", "1")?;
    fs.mount(Attrs::RDONLY | Attrs::NOSUID | Attrs::NODEV | Attrs::NOEXEC)
}

/// Kernel parameters to set, through the host's `/proc/sys` as this process sees it.
pub(super) struct Sysctl<'a> {
    dir: Option<OwnedFd>,
    wanted: &'a BTreeMap<String, String>,
}

static NONE: BTreeMap<String, String> = BTreeMap::new();

impl<'a> Sysctl<'a> {
    /// Opens the directory while the host's tree can be reached.
    pub(super) fn open(plan: &Plan<'a>) -> Result<Self> {
        let wanted = plan.spec.linux.as_ref().map_or(&NONE, |linux| &linux.sysctl);
        if wanted.is_empty() {
            return Ok(Self { dir: None, wanted });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, c"/proc/sys", flags, Mode::empty())
            .map_err(|e| SysError::new("open", "/proc/sys", e))
            .stage("sysctl")?;
        Ok(Self { dir: Some(dir), wanted })
    }

    /// Writes them.
    pub(super) fn write(&self) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for (name, value) in self.wanted {
            let path = path_of(name);
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat2(dir, path.as_str(), flags, Mode::empty(), resolve)
                .and_then(|file| rustix::io::write(&file, value.as_bytes()))
                .map_err(|e| SysError::new("write", format!("sysctl {name}={value}"), e))
                .map_err(|source| Error::Step { stage: "sysctl", source })?;
        }
        Ok(())
    }
}

/// `net.ipv4.conf.eth0/1.x` is `net/ipv4/conf/eth0.1/x`; a name with slashes only is
/// a path already. sysctl(8).
fn path_of(name: &str) -> String {
    let first = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    if first == Some(b'/') {
        return name.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_become_paths() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net.ipv4.conf.eth0/1.rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
    }
}
