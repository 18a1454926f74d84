//! Files and directories that appear whole or not at all: write aside, flush,
//! rename, flush the directory (open(2), fsync(2), rename(2), syncfs(2)).
//!
//! Invariant: after [`write`] or [`publish`] returns, a reader sees the old thing
//! or the new one and never a part, and with [`Durability::Durable`] a power cut
//! does not change that. A temporary file is removed when anything fails; one that
//! a SIGKILL leaves behind has a name that starts with `.` and ends in `.tmp`.
//!
//! Not here: what the bytes mean, or whether they match a digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: flushed to the disk before the call returns.
    Durable,
    /// The death of this process only: handed to the kernel, nothing flushed.
    Process,
}

const PRIVATE_MODE: u32 = 0o600;

/// Replaces `dir/name` by a file of mode 0600 with these bytes.
///
/// # Errors
/// The failing call; the old file is then untouched and no temporary is left.
pub fn write(dir: &Path, name: &str, bytes: &[u8], durability: Durability) -> Result<()> {
    write_mode(dir, name, bytes, PRIVATE_MODE, durability)
}

/// [`write`] with a file mode (permission bits; not subject to the umask).
///
/// # Errors
/// As [`write`].
pub fn write_mode(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<()> {
    let temporary = temporary_path(dir, name);
    let done = fill(&temporary, bytes, mode, durability)
        .and_then(|()| publish(&temporary, &dir.join(name), durability));
    if done.is_err() {
        // The first error is the one to tell; a leftover is named as such.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Renames `from` to `to`, replacing a file there, and makes the new name durable.
///
/// What `from` holds must be flushed already when `durability` asks for that. A
/// non-empty directory at `to` is never replaced (`ENOTEMPTY` or `EEXIST`).
///
/// # Errors
/// The failing call. If only the flush of the directory failed, `to` is in place.
pub fn publish(from: &Path, to: &Path, durability: Durability) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::from_io("rename", to.display(), &e))?;
    match (durability, to.parent()) {
        (Durability::Durable, Some(dir)) => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Flushes the names in a directory.
///
/// # Errors
/// When it can't be opened or flushed.
pub fn sync_dir(dir: &Path) -> Result<()> {
    open_then(dir, "fsync", |file| file.sync_all())
}

/// Flushes everything of the filesystem that holds `path` (syncfs(2)): the one call
/// that makes a whole unpacked tree durable.
///
/// # Errors
/// When `path` can't be opened, or a write-back failed since the filesystem's last
/// syncfs through any descriptor.
pub fn sync_filesystem(path: &Path) -> Result<()> {
    open_then(path, "syncfs", |file| Ok(rustix::fs::syncfs(file)?))
}

/// Lets the kernel begin to write out these bytes of a file, and doesn't wait for it: what
/// is to be flushed later is then on the disk already. A hint; nothing is promised.
/// sync_file_range(2).
pub fn begin_writeback(file: impl AsFd, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: takes an open descriptor and three numbers, and touches no memory of ours.
    // Its errors say that there is no such hint here, or what fsync(2) will say again.
    unsafe { libc::sync_file_range(fd, offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

fn open_then(path: &Path, call: &'static str, f: impl Fn(&File) -> io::Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::from_io("open", path.display(), &e))?;
    f(&file).map_err(|e| Error::from_io(call, path.display(), &e))
}

fn fill(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let failed = |call| move |e: io::Error| Error::from_io(call, path.display(), &e);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_MODE)
        .open(path)
        .map_err(failed("open"))?;
    file.write_all(bytes).map_err(failed("write"))?;
    if mode != PRIVATE_MODE {
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))
            .map_err(|e| failed("fchmod")(e.into()))?;
    }
    if durability == Durability::Durable {
        file.sync_all().map_err(failed("fsync"))?;
    }
    Ok(())
}

fn temporary_path(dir: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".{name}.{}.{number}.tmp", process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("capsa-atomic-{}-{name}", process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = Scratch::new("replace");
        for (bytes, durability) in
            [(&b"one"[..], Durability::Process), (&b"two"[..], Durability::Durable)]
        {
            write_mode(&dir.0, "f", bytes, 0o644, durability).unwrap();
            assert_eq!(fs::read(dir.0.join("f")).unwrap(), bytes);
        }
        assert_eq!(fs::metadata(dir.0.join("f")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_rename_keeps_the_old_thing_and_removes_the_temporary() {
        let dir = Scratch::new("failed");
        fs::create_dir(dir.0.join("f")).unwrap();
        fs::write(dir.0.join("f/inside"), "x").unwrap();
        let error = write(&dir.0, "f", b"new", Durability::Durable).unwrap_err();
        assert_eq!(error.call, "rename");
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
        assert_eq!(fs::read(dir.0.join("f/inside")).unwrap(), b"x");
    }

    #[test]
    fn a_filesystem_is_flushed_through_any_directory_in_it() {
        let dir = Scratch::new("syncfs");
        sync_filesystem(&dir.0).unwrap();
        assert_eq!(sync_dir(&dir.0.join("none")).unwrap_err().call, "open");
    }
}
