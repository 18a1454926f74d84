//! Walking a tree below a root: sorted, parents first, links not followed.
//!
//! One directory is open at a time, however deep the tree, and nothing is read by
//! a path that a link could bend: a directory's path is opened in its root, the
//! entries by name in that directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_sys::root::{Entry, RootDir, entries_of};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::{Error, Result};

/// One name met on a walk.
pub(crate) struct Visit<'a> {
    /// The open directory that holds it.
    pub(crate) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a OsStr,
    /// Below the root.
    pub(crate) path: &'a Path,
    /// Of itself, not of what it points to.
    pub(crate) stat: Stat,
}

struct Frame {
    path: PathBuf,
    entries: std::vec::IntoIter<Entry>,
}

/// Visits everything below the directory `start` of `root`, not `start` itself.
/// What vanishes meanwhile is left out.
pub(crate) fn walk(
    root: &RootDir,
    start: &Path,
    visit: &mut dyn FnMut(&Visit<'_>) -> Result<()>,
) -> Result<()> {
    let (mut dir, entries) = open_dir(root, start)?;
    let mut frames = vec![Frame { path: start.to_owned(), entries: entries.into_iter() }];
    while let Some(frame) = frames.last_mut() {
        let Some(entry) = frame.entries.next() else {
            frames.pop();
            // Only a parent with more to show is opened again.
            if let Some(above) = frames.last().filter(|above| above.entries.len() > 0) {
                dir = reopen(root, &above.path)?;
            }
            continue;
        };
        let path = frame.path.join(&entry.name);
        let stat = match rustix::fs::statat(&dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(|errno| failed("stat", &path, errno))?,
        };
        visit(&Visit { dir: dir.as_fd(), name: &entry.name, path: &path, stat })?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let (below, entries) = match open_dir(root, &path) {
                Err(Error::Tree { source, .. }) if source.errno == Errno::NOENT => continue,
                other => other?,
            };
            dir = below;
            frames.push(Frame { path, entries: entries.into_iter() });
        }
    }
    Ok(())
}

/// Bytes of the regular files in a tree, hard links once: what `docker ps -s` calls size.
///
/// # Errors
/// When a directory can't be read.
pub fn disk_size(root: &RootDir) -> Result<u64> {
    let (mut total, mut linked) = (0, HashSet::new());
    walk(root, Path::new(""), &mut |visit| {
        let stat = visit.stat;
        let counts = stat.st_nlink <= 1 || linked.insert((stat.st_dev, stat.st_ino));
        if counts && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            total += u64::try_from(stat.st_size).unwrap_or(0);
        }
        Ok(())
    })?;
    Ok(total)
}

/// Whether this is overlayfs' sign for "nothing here".
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn failed(call: &'static str, path: &Path, errno: Errno) -> Error {
    let source = capsa_sys::Error::new(call, path.display(), errno);
    Error::Tree { path: path.to_owned(), source }
}

fn open_dir(root: &RootDir, path: &Path) -> Result<(OwnedFd, Vec<Entry>)> {
    let fd = reopen(root, path)?;
    let entries = entries_of(fd.as_fd()).map_err(|errno| failed("getdents", path, errno))?;
    Ok((fd, entries))
}

fn reopen(root: &RootDir, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    root.open_in(path, flags, Mode::empty())
        .map_err(|source| Error::Tree { path: path.to_owned(), source })
}
