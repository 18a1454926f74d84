//! Loading a syscall filter: seccomp(2). Making one is not done here.
//!
//! A filter is classic BPF: 8-byte `sock_filter` records in native byte order.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::{Error, Result};

/// Options of [`load`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Log what is not allowed.
    pub log: bool,
    /// No speculative store bypass mitigation.
    pub spec_allow: bool,
    /// All threads of the process.
    pub tsync: bool,
    /// Give back a descriptor on which an agent gets notified.
    pub new_listener: bool,
    /// Only a fatal signal interrupts a call that waits for the agent.
    pub wait_killable: bool,
}

/// Most instructions the kernel takes.
pub const MAX_INSTRUCTIONS: usize = 4096;

impl Flags {
    fn bits(self) -> libc::c_ulong {
        [
            (self.tsync, libc::SECCOMP_FILTER_FLAG_TSYNC),
            (self.log, libc::SECCOMP_FILTER_FLAG_LOG),
            (self.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            (self.new_listener, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
            (self.wait_killable, 1 << 5),
            // With both, an error must be an errno and not a thread id.
            (self.tsync && self.new_listener, 1 << 4),
        ]
        .into_iter()
        .filter_map(|(on, bit)| on.then_some(bit))
        .fold(0, |all, bit| all | bit)
    }
}

/// Puts `filter` on the calling thread, for ever. Needs no_new_privs or CAP_SYS_ADMIN in the
/// thread's user namespace. The descriptor is there when a listener was asked for.
pub fn load(filter: &[u8], flags: Flags) -> Result<Option<OwnedFd>> {
    let fail = |errno| Error::new("seccomp", format!("filter of {} bytes", filter.len()), errno);
    let count = filter.len() / size_of::<libc::sock_filter>();
    if !filter.len().is_multiple_of(size_of::<libc::sock_filter>()) || count > MAX_INSTRUCTIONS {
        return Err(fail(Errno::INVAL));
    }
    let program = libc::sock_fprog {
        len: u16::try_from(count).map_err(|_| fail(Errno::INVAL))?,
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: seccomp(2) SET_MODE_FILTER copies `len` records from `filter`, which is that long and
    // is only read; user memory needs no alignment there.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.bits(),
            std::ptr::from_ref(&program),
        )
    };
    if answer < 0 {
        return Err(fail(last_errno()));
    }
    if !flags.new_listener {
        return Ok(None);
    }
    let fd = i32::try_from(answer).map_err(|_| fail(Errno::BADF))?;
    // SAFETY: with NEW_LISTENER the answer is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The kernel knows `action`, a `SECCOMP_RET_…` value without data.
pub fn action_available(action: u32) -> bool {
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            std::ptr::from_ref(&action),
        )
    };
    answer == 0
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_huge_filter_is_refused_before_the_kernel_sees_it() {
        assert_eq!(load(&[0; 7], Flags::default()).unwrap_err().errno, Errno::INVAL);
        let huge = vec![0; 8 * (MAX_INSTRUCTIONS + 1)];
        assert_eq!(load(&huge, Flags::default()).unwrap_err().errno, Errno::INVAL);
    }

    #[test]
    fn the_kernel_knows_errno_and_not_nonsense() {
        assert!(action_available(libc::SECCOMP_RET_ERRNO));
        assert!(!action_available(0x1234_0000));
    }
}
