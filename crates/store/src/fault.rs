//! Faults at the n-th step, for tests: with the feature `fault` a test arms the
//! calling thread, and the n-th point it passes fails with `EIO` or kills the
//! process as a crash would. Without the feature a point is nothing.
//!
//! A test runs its operation with n = 1, 2, … until it succeeds unharmed, so a new
//! step is covered the day it is written.

use std::path::Path;

use crate::Result;

/// What happens at the armed point.
#[cfg(feature = "fault")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step fails with `EIO`.
    Error,
    /// The process dies by SIGKILL.
    Kill,
}

#[cfg(feature = "fault")]
thread_local! {
    static ARMED: std::cell::Cell<Option<(u32, Fault)>> = const { std::cell::Cell::new(None) };
}

/// Arms the calling thread: the `nth` point from now on (1 is the next) fails.
#[cfg(feature = "fault")]
pub fn arm(nth: u32, fault: Fault) {
    ARMED.set(Some((nth, fault)));
}

/// Disarms the calling thread; true if the fault had not happened yet.
#[cfg(feature = "fault")]
pub fn disarm() -> bool {
    ARMED.take().is_some()
}

#[cfg(feature = "fault")]
pub(crate) fn point(path: &Path) -> Result<()> {
    match ARMED.get() {
        None => return Ok(()),
        Some((1, Fault::Kill)) => {
            // Nothing of this process runs after this: no destructor, no flush.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        Some((1, Fault::Error)) => {
            ARMED.set(None);
            let source = std::io::Error::from(rustix::io::Errno::IO);
            return Err(crate::Error::Io { action: "fault", path: path.to_owned(), source });
        }
        Some((left, fault)) => ARMED.set(Some((left - 1, fault))),
    }
    Ok(())
}

#[cfg(not(feature = "fault"))]
#[inline]
pub(crate) fn point(_path: &Path) -> Result<()> {
    Ok(())
}
