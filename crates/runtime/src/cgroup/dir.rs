//! One cgroup directory, held open: every file in it is opened below its
//! descriptor, so a renamed or replaced path is never followed.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use capsa_sys::Error as SysError;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::hierarchy::Controller;
use crate::Result;

/// A cgroup in one hierarchy.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) path: PathBuf,
    pub(super) controllers: Vec<Controller>,
    fd: OwnedFd,
}

impl Dir {
    /// Makes `path` and its missing parents; tells whether the last one is new.
    pub(super) fn create(path: PathBuf, controllers: Vec<Controller>) -> Result<(Self, bool)> {
        let new = make(&path)?;
        Ok((Self::open(path, controllers)?, new))
    }

    /// Opens a cgroup that is there.
    pub(super) fn open(path: PathBuf, controllers: Vec<Controller>) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = open(&path, flags, Mode::empty())
            .map_err(|errno| SysError::new("open", path.display(), errno))?;
        Ok(Self { path, controllers, fd })
    }

    /// For CLONE_INTO_CGROUP and BPF.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a file for writing.
    pub(super) fn writer(&self, file: &str) -> Result<OwnedFd, Errno> {
        openat(&self.fd, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Writes `value` in one write(2); the kernel takes or refuses it whole.
    pub(super) fn try_write(&self, file: &str, value: &str) -> Result<(), Errno> {
        rustix::io::write(self.writer(file)?, value.as_bytes()).map(drop)
    }

    /// As [`Dir::try_write`], with an error that names the file and the value.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.try_write(file, value).map_err(|errno| self.refused(file, value, errno))
    }

    /// Writes each line in turn through one open file.
    pub(super) fn write_lines(&self, file: &str, lines: &[String]) -> Result<()> {
        let fd = self.writer(file).map_err(|errno| self.refused(file, "", errno))?;
        for line in lines {
            rustix::io::write(&fd, line.as_bytes())
                .map_err(|errno| self.refused(file, line, errno))?;
        }
        Ok(())
    }

    /// The error of a refused write.
    pub(super) fn refused(&self, file: &str, value: &str, errno: Errno) -> crate::Error {
        let object = format!("{value:?} to {}", self.path.join(file).display());
        SysError::new("write", object, errno).into()
    }

    /// A file's text.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let fail = |errno| SysError::new("read", self.path.join(file).display(), errno);
        let fd = openat(&self.fd, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail)?;
        std::io::read_to_string(fs::File::from(fd)).map_err(|error| {
            SysError::from_io("read", self.path.join(file).display(), &error).into()
        })
    }

    /// A file's text; none when it can't be read.
    pub(super) fn read_opt(&self, file: &str) -> Option<String> {
        self.read(file).ok()
    }

    /// A file that holds one number; `max` is `u64::MAX`.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        match self.read_opt(file)?.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        }
    }

    /// The value of `key` in a file of `key value` lines.
    pub(super) fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.read_opt(file)?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// The file exists.
    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::statat(&self.fd, file, rustix::fs::AtFlags::empty()).is_ok()
    }
}

/// Makes the directory and its missing parents; true when the directory itself is new.
pub(super) fn make(path: &Path) -> Result<bool> {
    let mkdir = |path: &Path| rustix::fs::mkdir(path, Mode::from_raw_mode(0o755));
    let fail = |errno| SysError::new("mkdir", path.display(), errno);
    match mkdir(path) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            make(path.parent().ok_or_else(|| fail(Errno::NOENT))?)?;
            match mkdir(path) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(errno) => Err(fail(errno).into()),
            }
        }
        Err(errno) => Err(fail(errno).into()),
    }
}

/// The directories directly below `path`; none when it is gone.
pub(super) fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
