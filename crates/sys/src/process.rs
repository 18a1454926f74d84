//! Making, running and waiting for processes: clone3, exec, pidfds, and a spawn that
//! does not copy its caller's memory.
//!
//! [`clone`] is a fork: the child goes on with a copy of everything. It is refused
//! to a process that ever had a second thread, because the copy of a lock held by
//! another thread is never released. [`spawn`] works from any process.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use bitflags::bitflags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::{Error, Result};

bitflags! {
    /// What a child gets anew or shares; clone(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Clone: u64 {
        /// A user namespace; it owns the others made by the same call.
        const NEWUSER = 0x1000_0000;
        /// A mount namespace.
        const NEWNS = 0x0002_0000;
        /// A pid namespace; the child is process 1 in it.
        const NEWPID = 0x2000_0000;
        /// A network namespace.
        const NEWNET = 0x4000_0000;
        /// An IPC namespace.
        const NEWIPC = 0x0800_0000;
        /// A UTS namespace.
        const NEWUTS = 0x0400_0000;
        /// A cgroup namespace.
        const NEWCGROUP = 0x0200_0000;
        /// A time namespace.
        const NEWTIME = 0x80;
        /// The child's parent is the caller's parent.
        const PARENT = 0x8000;
    }
}

/// Which side of a [`clone`] the caller is on.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The caller; the new process is a zombie until it is waited for.
    Parent(Child),
}

/// A process that was made here.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: u32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The exit code as a shell tells it: 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// `struct clone_args` of `<linux/sched.h>`, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

unsafe extern "C" {
    /// `<sys/single_threaded.h>` of glibc: not zero while there was never a second thread.
    static __libc_single_threaded: c_char;
}

/// Forks with `flags`, into the cgroup2 directory `cgroup` if given. `EBUSY` for a
/// caller that has or had a second thread. clone3(2).
pub fn clone(flags: Clone, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    // SAFETY: glibc defines this variable; it is a plain char that only changes from
    // one to zero, by threads that this process itself would have to start.
    if unsafe { ptr::read_volatile(&raw const __libc_single_threaded) } == 0 {
        return Err(Error::new("clone3", "a process with threads", Errno::BUSY));
    }
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: flags.bits() | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: if flags.contains(Clone::PARENT) { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a clone_args of the size given and its pointer is to a live
    // int. Without CLONE_VM the child has its own copy of the stack and goes on here;
    // there is no other thread whose state it could have caught half-way.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Forked::Child),
        1.. => {
            // SAFETY: CLONE_PIDFD made this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent(Child { pid: pid as u32, pidfd }))
        }
        _ => Err(Error::new("clone3", format!("{flags:?}"), last_errno())),
    }
}

/// Replaces the calling process; returns only on failure. execve(2).
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end with null and point to C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Error::new("execve", path.to_string_lossy(), last_errno())
}

/// Waits for the end of a child and reaps it. waitid(2) with P_PIDFD.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended> {
    wait_with(pidfd, WaitIdOptions::EXITED)
        .map(|ended| ended.unwrap_or(Ended::Code(0)))
        .map_err(|e| Error::new("waitid", "child", e))
}

/// As [`wait`], but `None` while the child runs.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> Result<Option<Ended>> {
    wait_with(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        .map_err(|e| Error::new("waitid", "child", e))
}

fn wait_with(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<Ended>, Errno> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(Ended::Signal);
                return Ok(signal.or(status.exit_status().map(Ended::Code)));
            }
        }
    }
}

/// Waits for any child and reaps it: its pid and how it ended. `None` when there is
/// no child, or none has ended and `block` is false. waitpid(2).
pub fn wait_any(block: bool) -> Result<Option<(u32, Ended)>> {
    let options = if block {
        rustix::process::WaitOptions::empty()
    } else {
        rustix::process::WaitOptions::NOHANG
    };
    loop {
        match rustix::process::wait(options) {
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) | Ok(None) => return Ok(None),
            Err(e) => return Err(Error::new("waitpid", "any child", e)),
            Ok(Some((pid, status))) => {
                let signal = status.terminating_signal().map(Ended::Signal);
                let ended = signal.or(status.exit_status().map(Ended::Code));
                return Ok(ended.map(|ended| (pid.as_raw_nonzero().get() as u32, ended)));
            }
        }
    }
}

/// A descriptor of a process by its id. pidfd_open(2).
pub fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    let wanted = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let failed = |e| Error::new("pidfd_open", pid, e);
    let wanted = wanted.ok_or_else(|| failed(Errno::INVAL))?;
    rustix::process::pidfd_open(wanted, PidfdFlags::empty()).map_err(failed)
}

/// Sends signal number `signal`. pidfd_send_signal(2).
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = ptr::null::<c_void>();
    // SAFETY: the kernel reads no memory for a null siginfo.
    let done =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if done == 0 { Ok(()) } else { Err(Error::new("pidfd_send_signal", signal, last_errno())) }
}

/// Sends signal number `signal` to a child by its id; that it has ended is no error.
/// For a caller that reaps its children itself: the id cannot be another's. kill(2).
pub fn kill_pid(pid: Pid, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
}

/// Gives the caller an empty session keyring of its own, where the kernel has keys at
/// all, so that it doesn't share its maker's. keyctl(2).
pub fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    let anonymous = ptr::null::<c_char>();
    // SAFETY: a null name asks for an anonymous keyring; no memory is read.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
}

/// Sends SIGKILL; that the process has already ended is no error.
pub fn kill(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
}

/// A new program in a new session, made without copying the caller's memory.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, an `O_PATH` descriptor will do.
    pub exe: BorrowedFd<'a>,
    /// argv.
    pub args: &'a [CString],
    /// Whole environment.
    pub env: &'a [CString],
    /// Becomes descriptor 3; 0 to 2 are `/dev/null`, all others are closed.
    pub channel: BorrowedFd<'a>,
}

/// Number of the descriptor that [`Spawn::channel`] becomes.
pub const SPAWN_CHANNEL: i32 = 3;

/// Takes a descriptor that this process was started with, close-on-exec from now on.
/// To be called once for it, before anything else could own that number.
pub fn inherited(number: i32) -> Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Error::new("fcntl", number, last_errno()));
    }
    // SAFETY: it is open, and by the caller's promise nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .map_err(|e| Error::new("fcntl", number, e))?;
    Ok(fd)
}

/// What the child of [`spawn`] reads and writes; it shares the caller's memory.
struct SpawnChild {
    exe: c_int,
    channel: c_int,
    null: c_int,
    args: *const *const c_char,
    env: *const *const c_char,
    errno: c_int,
}

/// Runs `program`. The caller's thread sleeps until the new program runs or has
/// failed to; callable with any number of threads. clone(2) with CLONE_VM and
/// CLONE_VFORK, execveat(2).
pub fn spawn(program: &Spawn<'_>) -> Result<Child> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|e| Error::new("open", "/dev/null", e))?;
    let (args, env) = (pointers(program.args), pointers(program.env));
    let mut child = SpawnChild {
        exe: program.exe.as_raw_fd(),
        channel: program.channel.as_raw_fd(),
        null: null.as_raw_fd(),
        args: args.as_ptr(),
        env: env.as_ptr(),
        errno: 0,
    };
    let pidfd = vfork(&mut child)?;
    if child.errno != 0 {
        let _ = wait(pidfd.pidfd.as_fd());
        return Err(Error::new("execveat", "capsa", Errno::from_raw_os_error(child.errno)));
    }
    Ok(pidfd)
}

/// Enough for [`spawn_child`] in a debug build.
const SPAWN_STACK: usize = 64 * 1024;

fn vfork(child: &mut SpawnChild) -> Result<Child> {
    let mut stack: Vec<u128> = vec![0; SPAWN_STACK / size_of::<u128>()];
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let blocked = crate::signal::block_all()?;
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let arg = ptr::from_mut(child).cast::<c_void>();
    // SAFETY: the child runs `spawn_child` on `stack`, which lives until the caller
    // wakes up, and CLONE_VFORK keeps the caller asleep until the child has left this
    // memory. All signals are blocked, so no handler runs in the child.
    let pid = unsafe { libc::clone(spawn_child, top, flags, arg, &raw mut pidfd) };
    let errno = last_errno();
    drop(blocked);
    if pid < 0 {
        return Err(Error::new("clone", "spawn", errno));
    }
    // SAFETY: CLONE_PIDFD made this descriptor for us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as u32, pidfd })
}

/// The child of [`spawn`]: only system calls, no allocation, no return.
extern "C" fn spawn_child(arg: *mut c_void) -> c_int {
    // SAFETY: `vfork` passes its SpawnChild, which outlives this process's stay here.
    let child = unsafe { &mut *arg.cast::<SpawnChild>() };
    let errno = spawn_exec(child);
    child.errno = errno.raw_os_error();
    // SAFETY: ends this process at once, without handlers of the shared memory.
    unsafe { libc::_exit(127) }
}

fn spawn_exec(child: &SpawnChild) -> Errno {
    crate::signal::reset_all();
    let (exe, channel, null) = (high(child.exe), high(child.channel), high(child.null));
    // SAFETY: takes nothing; makes this process the leader of a session.
    unsafe { libc::setsid() };
    for (from, to) in [(null, 0), (null, 1), (null, 2), (channel, SPAWN_CHANNEL)] {
        // SAFETY: numbers of this process's own table, which it does not share.
        unsafe { libc::dup2(from, to) };
    }
    let _ = range(SPAWN_CHANNEL as u32 + 1, libc::CLOSE_RANGE_CLOEXEC);
    crate::signal::unblock_all();
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is empty, both arrays end with null, and all outlive the call.
    unsafe { libc::syscall(libc::SYS_execveat, exe, empty, child.args, child.env, flags) };
    last_errno()
}

/// A copy of a descriptor out of the way of those that the program gets.
fn high(fd: c_int) -> c_int {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) }
}

/// Marks every descriptor from `first` on close-on-exec. close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on, whoever in this process thinks to own
/// them: for a process that keeps nothing and never returns to its caller.
pub fn close_from(first: u32) -> Result<()> {
    range(first, 0)
}

fn range(first: u32, flags: u32) -> Result<()> {
    // SAFETY: takes no pointers. Closing is the documented purpose of the callers.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(Error::new("close_range", first, last_errno())) }
}

/// Ends the calling process at once, without running exit handlers. _exit(2).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no memory is involved and nothing runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Gives the memory that the allocator holds free back to the kernel, and lets go of the
/// program's own pages, which come back from its file when they are needed again.
pub fn trim_memory() {
    // SAFETY: malloc_trim(3) only touches the allocator's own free lists.
    unsafe { libc::malloc_trim(0) };
    let (begin, end) = (&raw const __executable_start, &raw const etext);
    let length = end.addr().saturating_sub(begin.addr());
    // SAFETY: the linker's symbols bound the program's headers, constants and code: mapped
    // from its file and never written, so that they read the same ever after.
    // madvise(2).
    unsafe { libc::madvise(begin.cast_mut().cast(), length, libc::MADV_DONTNEED) };
}

// SAFETY: names that the linker gives the bounds of a program's image; only their
// addresses are taken. end(3).
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_process_with_threads_may_spawn_but_not_fork() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let refused = clone(Clone::empty(), None).unwrap_err();
                assert_eq!(refused.errno, Errno::BUSY);
                let exe = std::fs::File::open("/bin/sh").unwrap();
                let args = [c"sh", c"-c", c"kill -7 $$"].map(CStr::to_owned);
                let channel = null();
                let program =
                    Spawn { exe: exe.as_fd(), args: &args, env: &[], channel: channel.as_fd() };
                let child = spawn(&program).unwrap();
                assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended::Signal(7));
            });
        });
    }

    #[test]
    fn a_program_that_cannot_run_is_an_error_and_leaves_no_child() {
        let exe = std::fs::File::open("/etc/passwd").unwrap();
        let channel = null();
        let program = Spawn { exe: exe.as_fd(), args: &[], env: &[], channel: channel.as_fd() };
        assert_eq!(spawn(&program).unwrap_err().errno, Errno::ACCESS);
    }

    #[test]
    fn codes_are_told_as_a_shell_does() {
        assert_eq!(Ended::Code(3).code(), 3);
        assert_eq!(Ended::Signal(9).code(), 137);
    }
}
