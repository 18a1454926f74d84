//! Signal masks and dispositions.
//!
//! Nothing here installs a handler: our processes read signals from descriptors or
//! wait for them.

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::{Error, Result};

/// One more than the last signal number.
const END: i32 = 65;

/// Puts the former mask back when dropped.
#[derive(Debug)]
pub struct Blocked {
    before: libc::sigset_t,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by the kernel; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Blocks every signal for the calling thread until the result is dropped.
pub fn block_all() -> Result<Blocked> {
    let mut before = MaybeUninit::uninit();
    let all = full();
    // SAFETY: both pointers are to sigset_t, one full and one to be filled in.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, before.as_mut_ptr()) };
    if failed != 0 {
        return Err(Error::new("sigprocmask", "all", Errno::from_raw_os_error(failed)));
    }
    // SAFETY: the call succeeded, so it has written the old mask.
    Ok(Blocked { before: unsafe { before.assume_init() } })
}

/// Unblocks every signal for the calling thread.
pub fn unblock_all() {
    let none = empty();
    // SAFETY: `none` is a valid set and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) };
}

/// Gives every signal of the calling process its default action. Only system calls:
/// fit for the time between vfork and exec.
pub fn reset_all() {
    for number in 1..END {
        set_action(number, libc::SIG_DFL);
    }
}

/// Ignores these signals.
pub fn ignore(numbers: &[i32]) {
    for number in numbers {
        set_action(*number, libc::SIG_IGN);
    }
}

/// Gives these signals their default action.
pub fn set_default(numbers: &[i32]) {
    for number in numbers {
        set_action(*number, libc::SIG_DFL);
    }
}

/// Waits for any signal, all of which are blocked, and takes it; its number.
/// sigwaitinfo(2).
pub fn take_next() -> i32 {
    let all = full();
    loop {
        // SAFETY: `all` is a valid set and no details are asked for.
        let number = unsafe { libc::sigwaitinfo(&all, std::ptr::null_mut()) };
        if number > 0 {
            return number;
        }
    }
}

/// A descriptor that is readable when a blocked signal is pending; each read of
/// [`PENDING_SIZE`] bytes takes one, its number in the first four. signalfd(2).
pub fn descriptor() -> Result<OwnedFd> {
    let all = full();
    // SAFETY: `all` is a valid set of the size that the C library passes on.
    let fd = unsafe { libc::signalfd(-1, &all, libc::SFD_CLOEXEC) };
    if fd < 0 {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        return Err(Error::new("signalfd", "all", errno));
    }
    // SAFETY: the call has made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Size of what a read of a [`descriptor`] takes.
pub const PENDING_SIZE: usize = size_of::<libc::signalfd_siginfo>();

fn set_action(number: i32, action: libc::sighandler_t) {
    // SAFETY: neither action runs code of ours; a number that cannot be changed
    // (SIGKILL, SIGSTOP, those of the C library) is refused, which is fine.
    unsafe { libc::signal(number, action) };
}

fn full() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a sigset_t, of which sigfillset writes all.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: it has just been written.
    unsafe { set.assume_init() }
}

fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a sigset_t, of which sigemptyset writes all.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it has just been written.
    unsafe { set.assume_init() }
}
