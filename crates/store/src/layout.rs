//! Where things lie under the data root, and who may use it.
//!
//! Only this file joins paths to the data root. Every directory is 0700: overlay
//! gets layers and uppers as descriptors that host root opened, and volumes are
//! bound the same way, so no container ever walks through the data root.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use capsa_oci::Digest;
use capsa_sys::atomic::{self, Durability};
use capsa_sys::lock;
use rustix::fs::IFlags;

use crate::error::Kind;
use crate::{Error, Result};

/// The number in `VERSION`; a change of the tree below (not of the tables) raises it.
const VERSION: u32 = 1;

pub(crate) struct Layout {
    root: PathBuf,
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

impl Layout {
    /// Takes the lock, checks the version, makes what is missing. The lock lives as
    /// long as the returned file.
    pub(crate) fn open(root: &Path) -> Result<(Self, File)> {
        make_dir(root)?;
        let root = root.canonicalize().map_err(|e| Error::io("resolve", root, e))?;
        let layout = Self { root };
        let lock = layout.lock()?;
        layout.check_version()?;
        for dir in ["db", "blobs/sha256", "ingest", "layers", "containers", "volumes"] {
            make_dir(&layout.root.join(dir))?;
        }
        spread(&layout.ingests());
        make_dir(&layout.spares())?;
        make_dir(&layout.trash())?;
        Ok((layout, lock))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("db/capsa.sqlite")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn spares(&self) -> PathBuf {
        self.root.join("spare")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> Result<PathBuf> {
        Ok(self.containers().join(file_name(Kind::Container, id)?))
    }

    pub(crate) fn volume(&self, name: &str) -> Result<PathBuf> {
        Ok(self.root.join("volumes").join(file_name(Kind::Volume, name)?))
    }

    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let failed = |e| Error::io("lock", &path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let pid = text.trim().parse().ok();
        let time = if pid.is_none_or(is_alive) { Duration::ZERO } else { lock::MOMENT };
        let Some(mut file) = lock::within(file, time).map_err(failed)? else {
            return Err(Error::Locked { root: self.root.clone(), pid });
        };
        // Only a courtesy to whoever finds it locked: not flushed, and a full disk
        // doesn't keep the daemon from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(file)
    }

    fn check_version(&self) -> Result<()> {
        let path = self.root.join("VERSION");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let text = format!("{VERSION}\n");
                atomic::write(&self.root, "VERSION", text.as_bytes(), Durability::Durable)?;
                return Ok(());
            }
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let found: u32 = text.trim().parse().map_err(|_| Error::Corrupt {
            object: path.display().to_string(),
            detail: format!("{text:?} is no layout number"),
        })?;
        if found > VERSION {
            return Err(Error::NewerLayout { root: self.root.clone(), found, known: VERSION });
        }
        Ok(())
    }
}

/// Makes a directory and its parents, all 0700.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("mkdir", path, e))
}

/// Asks ext4 to treat what is made in `dir` as trees of their own (`T` in chattr(1)): each
/// then gets a part of the disk that has room. Beside a tree that was just removed a new
/// one is slow to make, because ext4 steps over each inode that was freed in the last
/// minutes, for every file anew (`recently_deleted` in fs/ext4/ialloc.c): loading an image
/// again took four times as long. File systems without this flag need no asking.
fn spread(dir: &Path) {
    let set = || -> io::Result<()> {
        let dir = File::open(dir)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        if !flags.contains(IFlags::TOPDIR) {
            rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        }
        Ok(())
    };
    // Only speed depends on it.
    let _ = set();
}

/// Makes one directory with a mode that the umask does not touch.
pub(crate) fn make_dir_mode(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(path).map_err(|e| Error::io("mkdir", path, e))?;
    let wanted = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, wanted).map_err(|e| Error::io("chmod", path, e))
}

/// The names in a directory.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io("list", dir, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// A name that stays one path component, whoever sent it.
fn file_name(kind: Kind, name: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let valid = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() <= 255
        && name.bytes().all(plain);
    if valid { Ok(name) } else { Err(Error::BadName { kind, name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_that_is_not_hidden() {
        for good in ["a", "0f", "my_volume-1.2"] {
            assert!(file_name(Kind::Volume, good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "/", "a\0", "ä", &"a".repeat(256)] {
            assert!(file_name(Kind::Volume, bad).is_err(), "{bad}");
        }
    }
}
