//! The monitor: the small process that is the parent of one container.
//!
//! It survives the daemon. It makes the container, holds its streams, writes its log,
//! runs further processes in it, and records how it ended. One thread, one loop around
//! poll(2); what it waits for is derived from its state at each turn and so cannot be
//! stale. What it is told and tells is in [`crate::protocol`].

mod client;
mod container;
mod execs;
mod json_log;
mod pipes;
mod streams;
mod turn;

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use capsa_sys::channel::Channel;
use capsa_sys::mount::{self, Attrs, Change};
use capsa_sys::process::{self, Spawn};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::error::Result;

/// Name of a monitor's socket in the run directory of its container.
const SOCKET: &str = "monitor.sock";

/// A monitor that was just started and waits for `Create`.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    /// Readable when it has ended; the caller reaps it.
    pub pidfd: OwnedFd,
    /// Its control channel.
    pub channel: Channel,
}

/// Output streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// As frames number it.
    fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Our own executable in a form that no process of a container can write through
/// `/proc/<pid>/exe`: a read-only detached mount of it, or, where that cannot be made,
/// a sealed copy in memory. Once per daemon is enough.
pub fn self_exe() -> Result<OwnedFd> {
    let path = c"/proc/self/exe";
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let exe = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| capsa_sys::Error::new("open", "/proc/self/exe", e))?;
    readonly_mount(exe.as_fd()).or_else(|_| sealed_copy(path)).map_err(Into::into)
}

fn readonly_mount(exe: BorrowedFd<'_>) -> capsa_sys::Result<OwnedFd> {
    let clone = mount::clone_fd(exe, false)?;
    let set = Attrs::RDONLY | Attrs::NOSUID | Attrs::NODEV;
    mount::change(clone.as_fd(), &Change { set, ..Change::default() })?;
    Ok(clone)
}

fn sealed_copy(path: &CStr) -> capsa_sys::Result<OwnedFd> {
    let failed = |e| capsa_sys::Error::new("memfd_create", "capsa", e);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    let copy = rustix::fs::memfd_create(c"capsa", flags).map_err(failed)?;
    let exe = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let exe = exe.map_err(failed)?;
    while rustix::fs::sendfile(&copy, &exe, None, 1 << 30).map_err(failed)? > 0 {}
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(failed)?;
    Ok(copy)
}

/// Starts a monitor from `exe`, which [`self_exe`] made. It can wait idle for `Create`,
/// and ends when its channel does.
pub fn spawn(exe: BorrowedFd<'_>) -> Result<Spawned> {
    let (ours, theirs) = Channel::pair()?;
    let args = [c"capsa".to_owned(), c"monitor".to_owned()];
    let program = Spawn { exe, args: &args, env: &[], channel: theirs.as_fd() };
    let child = process::spawn(&program)?;
    Ok(Spawned { pid: child.pid, pidfd: child.pidfd, channel: ours })
}

/// The socket to give to a monitor with `Create`. It is there before the monitor hears of
/// its container, so a daemon that finds nobody listening in `dir` knows that no monitor
/// will ever work there, and one that is listening is heard or ends.
pub fn listen(dir: &Path) -> Result<Channel> {
    let socket = dir.join(SOCKET);
    // Of a monitor that was killed.
    let _ = fs::remove_file(&socket);
    Ok(Channel::listen(&socket)?)
}

/// The channel to the monitor that works in `dir`; its first message is `Status`.
pub fn connect(dir: &Path) -> Result<Channel> {
    Ok(Channel::connect(&dir.join(SOCKET))?)
}

/// The role `capsa monitor`. Returns its exit code when the container is gone.
pub fn run() -> i32 {
    let _ = rustix::thread::set_name(c"capsa-monitor");
    capsa_sys::signal::ignore(&crate::init::IGNORED_BY_US);
    match process::inherited(process::SPAWN_CHANNEL) {
        Ok(channel) => container::serve(Channel::from(channel)),
        Err(_) => 125,
    }
}
