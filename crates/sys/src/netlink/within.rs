//! Doing something inside another network namespace (setns(2)).
//!
//! A socket, once opened, stays in the namespace it was opened in, so that the
//! visit is a few microseconds long. Invariant: the calling thread is back when
//! [`within`] returns or unwinds; if the kernel refuses the way back, the
//! process aborts, because a thread in the wrong namespace would configure the
//! wrong network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Result};

const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `visit` with the calling thread in the network namespace `netns`.
///
/// Only the network namespace changes: paths below `/proc/sys/net` resolve to
/// the visited namespace's, everything else stays. `visit` must not start
/// threads or wait for other threads.
///
/// # Errors
/// When our own namespace can't be opened or `netns` can't be entered
/// (`CAP_SYS_ADMIN` is needed in both user namespaces).
pub fn within<T>(netns: BorrowedFd<'_>, visit: impl FnOnce() -> T) -> Result<T> {
    let home = own_namespace()?;
    enter(netns)?;
    let _return = Return(home);
    Ok(visit())
}

/// The network namespace of the calling thread.
///
/// # Errors
/// When `/proc` isn't mounted.
pub fn own_namespace() -> Result<OwnedFd> {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new("open", OWN, errno))
}

struct Return(OwnedFd);

impl Drop for Return {
    fn drop(&mut self) {
        if enter(self.0.as_fd()).is_err() {
            std::process::abort();
        }
    }
}

fn enter(netns: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .map_err(|errno| Error::new("setns", "network namespace", errno))
}
