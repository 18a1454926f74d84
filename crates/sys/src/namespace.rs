//! Entering and leaving namespaces, and id mappings of user namespaces.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::process::Clone;
use crate::{Error, Result};

/// One run of ids: `inside..` in the namespace is `outside..` of the caller's, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRun {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The id outside that `inside` is, if it is mapped.
pub fn map_id(runs: &[IdRun], inside: u32) -> Option<u32> {
    let run = runs.iter().find(|run| inside >= run.inside && inside - run.inside < run.count)?;
    run.outside.checked_add(inside - run.inside)
}

/// Gives the calling thread new namespaces. unshare(2).
pub fn unshare(kinds: Clone) -> Result<()> {
    // SAFETY: the flags are namespaces only: descriptors and memory stay shared.
    let done = unsafe { libc::unshare(kinds.bits() as i32) };
    if done == 0 { Ok(()) } else { Err(failed("unshare", format!("{kinds:?}"))) }
}

/// Joins the namespace behind an open namespace file, or those `kinds` of the process
/// behind a pidfd, all at once. setns(2).
pub fn join(of: BorrowedFd<'_>, kinds: Clone) -> Result<()> {
    // SAFETY: takes a descriptor and flags, no pointers.
    let done = unsafe { libc::setns(of.as_raw_fd(), kinds.bits() as i32) };
    if done == 0 { Ok(()) } else { Err(failed("setns", format!("{kinds:?}"))) }
}

/// Writes the id mappings of the user namespace of `pid`, once. user_namespaces(7).
pub fn write_id_maps(pid: u32, uids: &[IdRun], gids: &[IdRun]) -> Result<()> {
    for (file, runs) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        let line = |run: &IdRun| format!("{} {} {}\n", run.inside, run.outside, run.count);
        let text: String = runs.iter().map(line).collect();
        fs::write(&path, text).map_err(|e| Error::from_io("write", path, &e))?;
    }
    Ok(())
}

fn failed(call: &'static str, object: String) -> Error {
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Error::new(call, object, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_map_within_their_runs_only() {
        let runs = [
            IdRun { inside: 0, outside: 100_000, count: 10 },
            IdRun { inside: 50, outside: 5, count: 1 },
        ];
        assert_eq!(map_id(&runs, 0), Some(100_000));
        assert_eq!(map_id(&runs, 9), Some(100_009));
        assert_eq!(map_id(&runs, 10), None);
        assert_eq!(map_id(&runs, 50), Some(5));
        assert_eq!(map_id(&runs, 51), None);
        assert_eq!(map_id(&[], 0), None);
    }
}
