//! Descriptors that the async runtime watches.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::unix::AsyncFd;

/// Watches a descriptor that `owner` owns, for reading and writing.
///
/// # Errors
/// When the runtime's epoll does not take it.
// The replacement is unsafe for the sake of descriptors that are closed elsewhere: one
// that is owned is not, and this crate has no unsafe code.
#[expect(deprecated, reason = "see above")]
pub(crate) fn watched<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}
