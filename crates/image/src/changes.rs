//! What a container changed: its upper directory against the layers below it.
//!
//! As Docker tells it: a whiteout is a deletion; what has no counterpart below is
//! added; what has one is modified, except a directory whose own attributes are
//! unchanged (it is in the upper only because something below it changed), which
//! is named as modified when something below it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use capsa_sys::root::{RootDir, entries_of, xattr_at};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Result;
use crate::apply::OPAQUE;
use crate::tree::{failed, is_whiteout, walk};

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Content or attributes.
    Modified,
    /// New.
    Added,
    /// Gone.
    Deleted,
}

/// What `upper` changes over `lowers` (top first), sorted by path; paths are absolute.
///
/// # Errors
/// When a tree can't be read.
pub fn changes(upper: &RootDir, lowers: &[RootDir]) -> Result<Vec<(PathBuf, ChangeKind)>> {
    let mut found = BTreeMap::new();
    walk(upper, Path::new(""), &mut |visit| {
        let below = lookup(lowers, visit.path)?;
        let kind = match &below {
            _ if is_whiteout(&visit.stat) => below.is_some().then_some(ChangeKind::Deleted),
            None => Some(ChangeKind::Added),
            Some(below) if is_same_dir(below, &visit.stat) => None,
            Some(_) => Some(ChangeKind::Modified),
        };
        if let Some(kind) = kind {
            note(&mut found, visit.path, kind);
        }
        let both_dirs = below.is_some_and(|below| is_dir(&below)) && is_dir(&visit.stat);
        if both_dirs && is_opaque(visit.dir, visit.name, visit.path)? {
            for name in hidden_by(upper, lowers, visit.path)? {
                note(&mut found, &visit.path.join(name), ChangeKind::Deleted);
            }
        }
        Ok(())
    })?;
    let absolute = |(path, kind)| (Path::new("/").join::<PathBuf>(path), kind);
    Ok(found.into_iter().map(absolute).collect())
}

/// Notes a change, and that the directories above it have changed.
fn note(found: &mut BTreeMap<PathBuf, ChangeKind>, path: &Path, kind: ChangeKind) {
    found.insert(path.to_owned(), kind);
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        found.entry(above.to_owned()).or_insert(ChangeKind::Modified);
    }
}

/// What lies at `path` in the merged lower layers.
fn lookup(lowers: &[RootDir], path: &Path) -> Result<Option<Stat>> {
    for lower in lowers {
        match lookup_in(lower, path)? {
            InLayer::Found(stat) => return Ok(Some(stat)),
            InLayer::Hidden => return Ok(None),
            InLayer::Absent => {}
        }
    }
    Ok(None)
}

enum InLayer {
    Found(Stat),
    /// This layer says that nothing is there, whatever is below.
    Hidden,
    Absent,
}

fn lookup_in(lower: &RootDir, path: &Path) -> Result<InLayer> {
    let mut dir: Option<OwnedFd> = None;
    let mut opaque = false;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else { continue };
        let at = dir.as_ref().map_or(lower.as_fd(), AsFd::as_fd);
        let stat = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(if opaque { InLayer::Hidden } else { InLayer::Absent }),
            other => other.map_err(|errno| failed("stat", path, errno))?,
        };
        if is_whiteout(&stat) {
            return Ok(InLayer::Hidden);
        }
        if components.peek().is_none() {
            return Ok(InLayer::Found(stat));
        }
        if !is_dir(&stat) {
            return Ok(InLayer::Hidden);
        }
        opaque |= is_opaque(at, name, path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(at, name, flags, Mode::empty());
        dir = Some(next.map_err(|errno| failed("open", path, errno))?);
    }
    Ok(InLayer::Absent)
}

/// Names that exist in the merged lowers at `path` but not in the upper, which hides them.
fn hidden_by(upper: &RootDir, lowers: &[RootDir], path: &Path) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for lower in lowers {
        match lookup_in(lower, path)? {
            InLayer::Found(stat) if is_dir(&stat) => {
                names.extend(names_in(lower, path)?);
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { break };
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let dir = lower.open_in(parent, flags, Mode::empty());
                let dir = dir.map_err(|error| failed("open", path, error.errno))?;
                if is_opaque(dir.as_fd(), name, path)? {
                    break;
                }
            }
            InLayer::Absent => {}
            InLayer::Found(_) | InLayer::Hidden => break,
        }
    }
    for name in names_in(upper, path)? {
        names.remove(&name);
    }
    let mut gone = BTreeSet::new();
    for name in names {
        if lookup(lowers, &path.join(&name))?.is_some() {
            gone.insert(name);
        }
    }
    Ok(gone)
}

fn names_in(root: &RootDir, path: &Path) -> Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let fd = root
        .open_in(path, flags, Mode::empty())
        .map_err(|error| failed("open", path, error.errno))?;
    let entries = entries_of(fd.as_fd()).map_err(|errno| failed("getdents", path, errno))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

pub(crate) fn is_opaque(dir: impl AsFd, name: &OsStr, path: &Path) -> Result<bool> {
    let value = xattr_at(dir.as_fd(), name, OPAQUE);
    let value = value.map_err(|errno| failed("getxattr", path, errno))?;
    Ok(value.as_deref() == Some(b"y"))
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Copied up without a change of its own. Its size is the file system's business.
fn is_same_dir(below: &Stat, above: &Stat) -> bool {
    let own =
        |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
    is_dir(below) && is_dir(above) && own(below) == own(above)
}
