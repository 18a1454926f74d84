//! Waiting with a deadline: for a process by its pidfd, and, where the kernel has no
//! event to offer, for a condition.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long anything may take before it counts as hung.
pub fn patience() -> Duration {
    Duration::from_secs(40)
}

/// Waits for a child; none when the time is over.
pub fn wait_for_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(left)));
    }
}

/// Looks until `look` finds something.
///
/// # Panics
/// When it has not by the end of the patience.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        pause(LOOK_AGAIN);
    }
}

/// Lets time pass: between two looks at what has no event, or to hit an operation
/// somewhere in its middle.
pub fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
