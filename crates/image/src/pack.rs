//! Trees as tar streams: the changes of an overlay as a layer, or a whole tree.
//!
//! Equal trees give equal bytes: entries are sorted, times are whole seconds,
//! users have no names. Sockets have no form in a tar and are left out; of the
//! attributes, overlayfs' own and the host's labels stay behind.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use capsa_sys::root::{RootDir, xattrs_at};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::apply::{OPAQUE, WHITEOUT, WHITEOUT_OPAQUE};
use crate::tar::{Entry, Kind, Time, Writer};
use crate::tree::{Visit, failed, is_whiteout, walk};
use crate::{Error, Result};

/// overlayfs' mark of a directory that was renamed by reference.
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
/// Attributes that belong to this host or to overlayfs, by prefix.
const HOST_XATTRS: [&[u8]; 5] =
    [b"trusted.overlay.", b"user.overlay.", b"security.selinux", b"security.ima", b"security.evm"];

/// Writes the upper directory of an overlay as a layer: whiteouts get their `.wh.`
/// names back, opaque directories their `.wh..wh..opq`.
///
/// # Errors
/// The tree can't be read or `out` not be written, or the overlay used redirects.
pub fn diff<W: Write>(upper: &RootDir, out: W) -> Result<W> {
    let mut packer = Packer::new(out, true);
    walk(upper, Path::new(""), &mut |visit| {
        packer.add(visit, visit.path.as_os_str().as_bytes().to_vec())
    })?;
    packer.writer.finish()
}

/// Writes everything below the directory `path` of `root` with names relative to it
/// (the form of an export).
///
/// # Errors
/// The tree can't be read, or `out` not be written.
pub fn pack<W: Write>(root: &RootDir, path: &Path, out: W) -> Result<W> {
    let tree = subdir(root, path)?;
    let mut packer = Packer::new(out, false);
    walk(&tree, Path::new(""), &mut |visit| {
        packer.add(visit, visit.path.as_os_str().as_bytes().to_vec())
    })?;
    packer.writer.finish()
}

/// Writes `path` of `root` and everything below it, called `name` in the archive (the
/// form of a copy). A link at `path` itself is not followed unless `path` ends in a slash.
///
/// # Errors
/// `path` does not exist, the tree can't be read, or `out` not be written.
pub fn pack_as<W: Write>(root: &RootDir, path: &Path, name: &OsStr, out: W) -> Result<W> {
    let tree_error = |source| Error::Tree { path: path.to_owned(), source };
    let follow = path.as_os_str().as_bytes().ends_with(b"/");
    let stat = if follow { root.stat(path) } else { root.lstat(path) }.map_err(tree_error)?;
    let mut packer = Packer::new(out, false);
    let top = name.as_bytes().to_vec();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let (dir, file) = root.parent_of(path).map_err(tree_error)?;
        packer.add(&Visit { dir: rustix::fd::AsFd::as_fd(&dir), name: &file, path, stat }, top)?;
        return packer.writer.finish();
    }
    let tree = subdir(root, path)?;
    let fd = rustix::fd::AsFd::as_fd(&tree);
    packer
        .add(&Visit { dir: fd, name: OsStr::new("."), path: Path::new(""), stat }, top.clone())?;
    let base = if top.ends_with(b"/") { top } else { [&top[..], b"/"].concat() };
    walk(&tree, Path::new(""), &mut |visit| {
        packer.add(visit, [&base[..], visit.path.as_os_str().as_bytes()].concat())
    })?;
    packer.writer.finish()
}

struct Packer<W> {
    writer: Writer<W>,
    layer: bool,
    /// First name of each inode that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn new(out: W, layer: bool) -> Self {
        Self { writer: Writer::new(out), layer, linked: HashMap::new() }
    }

    fn add(&mut self, visit: &Visit<'_>, name: Vec<u8>) -> Result<()> {
        if self.layer && is_whiteout(&visit.stat) {
            return self.writer.bare(&beside(&name, &[WHITEOUT, visit.name.as_bytes()].concat()));
        }
        if self.layer && visit.name.as_bytes().starts_with(WHITEOUT) {
            // As a layer's name it would delete something.
            return Err(Error::Whiteout { path: visit.path.display().to_string() });
        }
        let Some(kind) = kind_of(&visit.stat) else { return Ok(()) };
        let mut entry = entry_of(name, kind, &visit.stat);
        if kind != Kind::Dir && visit.stat.st_nlink > 1 && self.is_linked(&mut entry, &visit.stat) {
            return self.writer.bare(&entry);
        }
        let opaque = self.xattrs(visit, &mut entry)?;
        match kind {
            Kind::File => self.file(visit, &entry),
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(visit.dir, visit.name, Vec::new());
                let target = target.map_err(|errno| failed("readlink", visit.path, errno))?;
                entry.link = target.into_bytes();
                self.writer.bare(&entry)
            }
            _ => self.writer.bare(&entry),
        }?;
        if !opaque {
            return Ok(());
        }
        let inside = [&entry.path[..], b"/"].concat();
        self.writer.bare(&beside(&inside, WHITEOUT_OPAQUE))
    }

    fn is_linked(&mut self, entry: &mut Entry, stat: &Stat) -> bool {
        match self.linked.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => {
                entry.link.clone_from(first);
                entry.kind = Kind::HardLink;
                true
            }
            None => {
                self.linked.insert((stat.st_dev, stat.st_ino), entry.path.clone());
                false
            }
        }
    }

    /// A file that vanished since it was seen is left out.
    fn file(&mut self, visit: &Visit<'_>, entry: &Entry) -> Result<()> {
        if entry.size == 0 {
            return self.writer.bare(entry);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(visit.dir, visit.name, flags, Mode::empty()) {
            Ok(fd) => self.writer.entry(entry, &mut File::from(fd)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("open", visit.path, errno)),
        }
    }

    /// Takes over the attributes that mean something elsewhere; whether it is opaque.
    fn xattrs(&self, visit: &Visit<'_>, entry: &mut Entry) -> Result<bool> {
        let found = match xattrs_at(visit.dir, visit.name) {
            Err(Errno::NOENT) => Vec::new(),
            other => other.map_err(|errno| failed("listxattr", visit.path, errno))?,
        };
        let mut opaque = false;
        for (name, value) in found {
            let name = name.into_bytes();
            if self.layer && name == REDIRECT {
                return Err(Error::Redirect { path: visit.path.to_owned() });
            }
            opaque |= self.layer && name == OPAQUE.as_bytes() && value == b"y";
            if !HOST_XATTRS.iter().any(|prefix| name.starts_with(prefix)) {
                entry.xattrs.push((name, value));
            }
        }
        Ok(opaque && entry.kind == Kind::Dir)
    }
}

/// An empty file beside `name`.
fn beside(name: &[u8], file: &[u8]) -> Entry {
    let parent = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    Entry::new([&name[..parent], file].concat(), Kind::File, 0)
}

fn entry_of(name: Vec<u8>, kind: Kind, stat: &Stat) -> Entry {
    let mut entry = Entry::new(name, kind, stat.st_mode & 0o7777);
    (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
    entry.mtime = Time { sec: stat.st_mtime, nsec: 0 };
    if kind == Kind::File {
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
    }
    if matches!(kind, Kind::Char | Kind::Block) {
        entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    }
    entry
}

fn kind_of(stat: &Stat) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

fn subdir(root: &RootDir, path: &Path) -> Result<RootDir> {
    root.subdir(path).map_err(|source| Error::Tree { path: path.to_owned(), source })
}
