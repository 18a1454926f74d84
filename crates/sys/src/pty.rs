//! Pseudo-terminals of a given devpts instance.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::{Error, Result};

/// `f_type` of devpts.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end that the outside reads and writes.
    pub master: OwnedFd,
    /// The end that programs have as their terminal.
    pub terminal: OwnedFd,
}

/// A new terminal of the devpts instance mounted at `pts`. It is refused when
/// something else lies there: a container could have put it in the way. The terminal
/// is reached through its master, never by a name. pts(4), ioctl_tty(2).
pub fn open(pts: BorrowedFd<'_>) -> Result<Pty> {
    let failed = |e| Error::new("open", "/dev/pts/ptmx", e);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(pts, c"ptmx", flags, Mode::empty()).map_err(failed)?;
    let found = rustix::fs::fstatfs(&master).map_err(failed)?;
    if found.f_type != DEVPTS_SUPER_MAGIC {
        return Err(failed(Errno::NOTTY));
    }
    rustix::pty::unlockpt(&master).map_err(|e| Error::new("unlockpt", "/dev/pts/ptmx", e))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags)
        .map_err(|e| Error::new("TIOCGPTPEER", "/dev/pts/ptmx", e))?;
    Ok(Pty { master, terminal })
}

/// Sets the size in characters; the foreground processes get SIGWINCH.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
        .map_err(|e| Error::new("TIOCSWINSZ", "terminal", e))
}

/// Makes `terminal` the controlling terminal of the caller, which leads a session.
pub fn take_control(terminal: BorrowedFd<'_>) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal.as_fd())
        .map_err(|e| Error::new("TIOCSCTTY", "terminal", e))
}
