//! One directory as the whole world: every lookup stays below it.
//!
//! A container or an archive chooses the paths and the symbolic links that lie in
//! a root file system, so a path inside it is never joined to a host path. A
//! [`RootDir`] is a directory descriptor, and every lookup goes through openat2(2)
//! with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: absolute links and `..` end at
//! this directory, as they would after chroot(2), and no race can lead out.
//!
//! Paths may be written absolute or relative: both mean "below the root".
//! Invariant: no function here follows the last component of a path that it
//! changes, and none hands a path of the root to a call that resolves it from `/`
//! (`/proc/self/fd/N/name` with the l*xattr calls excepted: N is ours, and the
//! name has one component that isn't followed).

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dev, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, XattrFlags,
};
use rustix::io::Errno;

use crate::{Error, Result};

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A rename elsewhere makes `..` unsafe for one try (openat2(2), EAGAIN).
const TRIES: usize = 128;
const XATTR_MAX: usize = 64 * 1024;

/// A directory out of which no path leads.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, one component.
    pub name: OsString,
    /// What it is; a symbolic link is itself.
    pub kind: FileType,
}

impl RootDir {
    /// Opens the host directory `path` as a root. `path` is trusted and followed.
    pub fn open(path: &Path) -> Result<Self> {
        rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map(|fd| Self { fd })
            .map_err(|errno| Error::new("open", path.display(), errno))
    }

    /// Takes an open directory (`O_PATH` is enough) as a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A second handle to the same root.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone();
        fd.map(|fd| Self { fd }).map_err(|error| Error::from_io("dup", "directory", &error))
    }

    /// Opens `path`. The last component is followed (inside the root) unless
    /// `flags` has `O_NOFOLLOW`; `O_CLOEXEC` is always set. `mode` counts only when
    /// `flags` can create.
    pub fn open_in(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        self.resolve(path, flags, mode)
            .map_err(|errno| Error::new("openat2", path.display(), errno))
    }

    /// Opens the directory `path`, followed, as a root of its own: from then on
    /// nothing leads out of *it*.
    pub fn subdir(&self, path: &Path) -> Result<Self> {
        self.open_in(path, DIRECTORY, Mode::empty()).map(Self::from_fd)
    }

    /// Creates the regular file `path` for writing; it must not exist (`O_EXCL`).
    pub fn create(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.open_in(path, flags, mode)
    }

    /// The directory that holds `path`, followed inside the root, and the last
    /// component, not followed. `EINVAL` when `path` names the root itself or ends
    /// in `..`.
    pub fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let split = path.file_name().zip(path.parent());
        let Some((name, parent)) = split else {
            return Err(Error::new("resolve the parent of", path.display(), Errno::INVAL));
        };
        Ok((self.open_in(parent, DIRECTORY, Mode::empty())?, name.to_owned()))
    }

    /// Makes the directory `path` and those above it where they are missing, with
    /// `mode` under the umask. Links on the way are followed inside the root; one
    /// that dangles is an error (`EEXIST`). Returns the last directory.
    pub fn mkdir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let mut done = PathBuf::new();
        let mut last = self.open_in(&done, DIRECTORY, Mode::empty())?;
        for component in path.components() {
            let (Component::Normal(_) | Component::ParentDir) = component else { continue };
            done.push(component);
            last = match self.resolve(&done, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => make_dir(&last, component.as_os_str(), mode)
                    .map_err(|errno| Error::new("mkdir", done.display(), errno))?,
                other => other.map_err(|errno| Error::new("openat2", done.display(), errno))?,
            };
        }
        Ok(last)
    }

    /// Metadata of what `path` leads to, links followed.
    pub fn stat(&self, path: &Path) -> Result<Stat> {
        self.stat_as(path, OFlags::PATH)
    }

    /// Metadata of `path` itself.
    pub fn lstat(&self, path: &Path) -> Result<Stat> {
        self.stat_as(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Where the symbolic link `path` points, as it is written in the link.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let fd = self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        rustix::fs::readlinkat(&fd, "", Vec::new())
            .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))
            .map_err(|errno| Error::new("readlink", path.display(), errno))
    }

    /// Makes a symbolic link at `path`; `target` is written as it is.
    pub fn symlink(&self, target: &Path, path: &Path) -> Result<()> {
        let (dir, name) = self.parent_of(path)?;
        rustix::fs::symlinkat(target, &dir, &name)
            .map_err(|errno| Error::new("symlink", path.display(), errno))
    }

    /// Gives `old` a second name `new`. Neither last component is followed, so a
    /// link to a symbolic link is a link to that link.
    pub fn hardlink(&self, old: &Path, new: &Path) -> Result<()> {
        let (old_dir, old_name) = self.parent_of(old)?;
        let (new_dir, new_name) = self.parent_of(new)?;
        rustix::fs::linkat(&old_dir, &old_name, &new_dir, &new_name, AtFlags::empty())
            .map_err(|errno| Error::new("link", new.display(), errno))
    }

    /// Makes a device, fifo, socket or empty file. Devices need `CAP_MKNOD`.
    pub fn mknod(&self, path: &Path, kind: FileType, mode: Mode, device: Dev) -> Result<()> {
        let (dir, name) = self.parent_of(path)?;
        rustix::fs::mknodat(&dir, &name, kind, mode, device)
            .map_err(|errno| Error::new("mknod", path.display(), errno))
    }

    /// Removes `path` and, when it is a directory, everything below it. Missing is fine.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        let (dir, name) = match self.parent_of(path) {
            Err(error) if error.errno == Errno::NOENT => return Ok(()),
            other => other?,
        };
        remove_tree(dir.as_fd(), &name).map_err(|errno| Error::new("remove", path.display(), errno))
    }

    /// Moves `old` to `new` (renameat2(2)), replacing what is there unless `flags` forbid it.
    pub fn rename(&self, old: &Path, new: &Path, flags: RenameFlags) -> Result<()> {
        let (old_dir, old_name) = self.parent_of(old)?;
        let (new_dir, new_name) = self.parent_of(new)?;
        rustix::fs::renameat_with(&old_dir, &old_name, &new_dir, &new_name, flags)
            .map_err(|errno| Error::new("rename", old.display(), errno))
    }

    /// The names in the directory `path` (followed), sorted by their bytes.
    pub fn entries(&self, path: &Path) -> Result<Vec<Entry>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.open_in(path, flags, Mode::empty())?;
        entries_of(fd.as_fd()).map_err(|errno| Error::new("getdents", path.display(), errno))
    }

    /// All extended attributes of `path` itself, sorted by name.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<(CString, Vec<u8>)>> {
        let (dir, name) = self.place_of(path)?;
        xattrs_at(dir.as_fd(), &name)
            .map_err(|errno| Error::new("listxattr", path.display(), errno))
    }

    /// Sets an extended attribute of `path` itself.
    pub fn set_xattr(&self, path: &Path, name: &str, value: &[u8]) -> Result<()> {
        let (dir, file) = self.place_of(path)?;
        set_xattr_at(dir.as_fd(), &file, name, value)
            .map_err(|errno| Error::new("setxattr", path.display(), errno))
    }

    /// Like [`Self::parent_of`], and for the root itself the root and `.`.
    fn place_of(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        if path.components().any(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        {
            return self.parent_of(path);
        }
        Ok((self.open_in(path, DIRECTORY, Mode::empty())?, ".".into()))
    }

    fn stat_as(&self, path: &Path, flags: OFlags) -> Result<Stat> {
        let fd = self.open_in(path, flags, Mode::empty())?;
        rustix::fs::fstat(&fd).map_err(|errno| Error::new("fstat", path.display(), errno))
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let creates =
            flags.intersects(OFlags::CREATE | OFlags::TMPFILE.difference(OFlags::DIRECTORY));
        let mode = if creates { mode } else { Mode::empty() };
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, CONFINED) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<RootDir> for OwnedFd {
    fn from(root: RootDir) -> Self {
        root.fd
    }
}

/// The names in the directory `dir` (opened for reading) without `.` and `..`, sorted.
pub fn entries_of(dir: BorrowedFd<'_>) -> Result<Vec<Entry>, Errno> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        entries.push(Entry { name: name.to_owned(), kind });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Removes `name` in `dir`, with everything below it when it is a directory.
/// Missing is fine; links are removed, not followed.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    // Depth is bounded by memory, not by the stack or by open descriptors: the
    // way back up is `..` of a tree that nobody else can move out of its root,
    // checked by the inode that was left.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut above: Vec<(Stat, OsString)> = Vec::new();
    loop {
        if let Some(child) = empty_out(here.as_fd())? {
            let below = rustix::fs::openat(&here, &child, flags, Mode::empty())?;
            above.push((rustix::fs::fstat(&here)?, child));
            here = below;
            continue;
        }
        let Some((stat, child)) = above.pop() else { break };
        here = rustix::fs::openat(&here, "..", flags, Mode::empty())?;
        let now = rustix::fs::fstat(&here)?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Errno::AGAIN);
        }
        rustix::fs::unlinkat(&here, &child, AtFlags::REMOVEDIR)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// All extended attributes of `name` in `dir`, not followed, sorted by name.
/// A file system without them has none.
pub fn xattrs_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let path = proc_path(dir, name);
    let mut names = [0u8; XATTR_MAX];
    let len = match rustix::fs::llistxattr(&path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    if len == 0 {
        return Ok(Vec::new());
    }
    let mut value = vec![0u8; XATTR_MAX];
    let mut found = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = CString::new(name) else { continue };
        let len = rustix::fs::lgetxattr(&path, &name, &mut value[..])?;
        found.push((name, value[..len].to_vec()));
    }
    found.sort_unstable();
    Ok(found)
}

/// One extended attribute of `name` in `dir`, not followed; `None` when it has none.
pub fn xattr_at(dir: BorrowedFd<'_>, name: &OsStr, key: &str) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0u8; 256];
    match rustix::fs::lgetxattr(proc_path(dir, name), key, &mut value[..]) {
        Ok(len) => Ok(Some(value[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets an extended attribute of `name` in `dir`, not followed.
pub fn set_xattr_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    key: impl rustix::path::Arg,
    value: &[u8],
) -> Result<(), Errno> {
    rustix::fs::lsetxattr(proc_path(dir, name), key, value, XattrFlags::empty())
}

/// There is no `lsetxattrat` before Linux 6.13 and f*xattr refuses `O_PATH`
/// descriptors, links and devices: the directory is named by our own descriptor,
/// and the l* calls don't follow the one name behind it.
fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

fn make_dir(dir: &OwnedFd, name: &OsStr, mode: Mode) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    match rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        // A link was there: it dangles, or it would have been followed.
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Errno::EXIST),
        other => other,
    }
}

/// Unlinks all but the directories in `dir`, and those that are empty; returns one that isn't.
fn empty_out(dir: BorrowedFd<'_>) -> Result<Option<OsString>, Errno> {
    for entry in entries_of(dir)? {
        let flags = match entry.kind {
            FileType::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(dir, &entry.name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(entry.name)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
