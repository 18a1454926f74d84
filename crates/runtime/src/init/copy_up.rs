//! `tmpcopyup`: a new tmpfs starts with what it covers.
//!
//! Directories, files and links with owner and mode. Links are copied, never followed;
//! devices, sockets and FIFOs stay behind.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use capsa_sys::Error as SysError;
use capsa_sys::root::entries_of;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Copies the content of the directory `from` into `to`, and its owner and mode.
pub(super) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> capsa_sys::Result<()> {
    copy_directory(from, to).map_err(|errno| SysError::new("copy up", "tmpfs", errno))
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    for entry in entries_of(from)? {
        let name = entry.name.as_os_str();
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let below = open(from, name, flags)?;
                copy_directory(below.as_fd(), open(to, name, flags)?.as_fd())?;
            }
            FileType::RegularFile => copy_file(from, to, name, &stat)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    let here = open(to, ".".as_ref(), OFlags::DIRECTORY)?;
    settle(&here, &rustix::fs::fstat(from)?)
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    stat: &Stat,
) -> Result<(), Errno> {
    let mut source = File::from(open(from, name, OFlags::NOFOLLOW)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR)?);
    std::io::copy(&mut source, &mut copy)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    settle(&OwnedFd::from(copy), stat)
}

/// The owner before the mode: a change of owner takes the set-user-id bit away.
fn settle(copy: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(copy, Some(uid), Some(gid))?;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn open(at: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
