//! How the calling process is scheduled, and as which kind of system it is run.

use rustix::io::Errno;

use crate::{Error, Result};

/// Scheduling of a process; `struct sched_attr` of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_OTHER` and so on.
    pub policy: u32,
    /// `SCHED_FLAG_…`
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub period: u64,
}

/// `struct sched_attr` as of Linux 3.14.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The numbers of policies and flags by their names.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// The number of a policy.
pub fn policy(name: &str) -> Option<u32> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The bit of a flag.
pub fn flag(name: &str) -> Option<u64> {
    FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit)
}

/// Sets the calling thread's scheduling. sched_setattr(2).
pub fn set_scheduling(wanted: Scheduling) -> Result<()> {
    let Scheduling { policy, flags, nice, priority, runtime, deadline, period } = wanted;
    let size = size_of::<SchedAttr>() as u32;
    let attr = SchedAttr { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: `attr` is a sched_attr of the size that it says it has; 0 is the caller.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    check(done, "sched_setattr", format!("{wanted:?}"))
}

/// Sets the calling thread's I/O class (1 real time, 2 best effort, 3 idle) and its
/// priority in that, 0 to 7. ioprio_set(2).
pub fn set_io_priority(class: u32, priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = class << 13 | priority & 0x1fff;
    // SAFETY: takes numbers only; 0 is the caller.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    check(done, "ioprio_set", format!("class {class} priority {priority}"))
}

/// Sets the execution domain: 0 is Linux, 8 is Linux with a 32-bit `uname`. personality(2).
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: takes a number only.
    let before = unsafe { libc::personality(libc::c_ulong::from(domain)) };
    check(if before < 0 { -1 } else { 0 }, "personality", domain.to_string())
}

fn check(done: libc::c_long, call: &'static str, object: String) -> Result<()> {
    if done == 0 {
        return Ok(());
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err(Error::new(call, object, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_become_less_important() {
        let batch = policy("SCHED_BATCH").unwrap();
        std::thread::spawn(move || {
            set_scheduling(Scheduling { policy: batch, nice: 5, ..Scheduling::default() }).unwrap();
            set_io_priority(3, 0).unwrap();
        })
        .join()
        .unwrap();
        assert!(set_io_priority(5, 0).is_err());
        assert_eq!(flag("SCHED_FLAG_RESET_ON_FORK"), Some(1));
        assert_eq!(policy("SCHED_BANANA"), None);
    }
}
