//! Waiting for a process in the foreground: its terminal, our signals, its end.
//!
//! All signals are blocked and read from a descriptor, so that one poll sees everything;
//! those that are meant for the program are passed on.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use capsa_sys::process::{self, Ended};
use capsa_sys::{pty, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::Result;

/// Sends the master of a terminal to who listens at `socket`, as all OCI runtimes do.
pub(super) fn hand_over(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let failed = |call| move |e: Errno| capsa_sys::Error::new(call, socket.display(), e);
    let family = AddressFamily::UNIX;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket"))?;
    let address = SocketAddrUnix::new(socket).map_err(failed("connect"))?;
    rustix::net::connect(&fd, &address).map_err(failed("connect"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&fd, &name, &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| failed("sendmsg")(e).into())
}

/// Our signals, held back from the moment on that they are meant for the program.
pub(super) struct Signals {
    _blocked: signal::Blocked,
    pending: OwnedFd,
}

impl Signals {
    /// Holds them back. Programs that this process starts by clone inherit that, so the
    /// container has to exist already.
    pub(super) fn hold() -> Result<Self> {
        let _blocked = signal::block_all()?;
        Ok(Self { _blocked, pending: signal::descriptor()? })
    }

    /// Waits for a child to end; passes on our signals and, with a `master`, what is typed
    /// and what it prints.
    pub(super) fn pass_on(self, pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<Ended> {
        let terminal = master.map(Terminal::new);
        let mut foreground = Foreground { pidfd, signals: &self.pending, terminal };
        while !foreground.turn()? {}
        foreground.drain();
        Ok(process::wait(pidfd)?)
    }
}

struct Foreground<'a> {
    pidfd: BorrowedFd<'a>,
    signals: &'a OwnedFd,
    terminal: Option<Terminal>,
}

impl Foreground<'_> {
    /// Handles what has happened; true when the process has ended.
    fn turn(&mut self) -> Result<bool> {
        let input = stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.pidfd, PollFlags::IN),
            PollFd::new(self.signals, PollFlags::IN),
        ];
        if let Some(terminal) = &self.terminal {
            fds.push(PollFd::new(&terminal.master, PollFlags::IN));
            if terminal.reads_stdin {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(capsa_sys::Error::new("poll", "foreground", e).into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if happened[1] {
            self.take_signal();
        }
        if let Some(terminal) = &mut self.terminal {
            if happened.get(2) == Some(&true) && !terminal.show() {
                self.terminal = None;
            } else if happened.get(3) == Some(&true) {
                terminal.feed();
            }
        }
        Ok(happened[0])
    }

    fn take_signal(&self) {
        let mut pending = [0u8; signal::PENDING_SIZE];
        if rustix::io::read(self.signals, &mut pending) != Ok(pending.len()) {
            return;
        }
        let number = pending.first_chunk().map_or(0, |first| i32::from_ne_bytes(*first));
        match number {
            libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE => {}
            libc::SIGWINCH => {
                if let Some(terminal) = &self.terminal {
                    terminal.resize();
                }
            }
            // It may just have ended: its end is seen next.
            other => drop(process::send_signal(self.pidfd, other)),
        }
    }

    /// Shows what was printed before the end.
    fn drain(&mut self) {
        let Some(terminal) = &mut self.terminal else { return };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut fds = [PollFd::new(&terminal.master, PollFlags::IN)];
            let ready = matches!(poll(&mut fds, Some(&now)), Ok(1..));
            if !ready || !terminal.show() {
                return;
            }
        }
    }
}

/// Our terminal, raw, and the container's.
struct Terminal {
    master: OwnedFd,
    reads_stdin: bool,
    before: Option<Termios>,
}

impl Terminal {
    fn new(master: OwnedFd) -> Self {
        let before = if isatty(stdin()) { tcgetattr(stdin()).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Without it typing is only less pleasant.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        let terminal = Self { master, reads_stdin: true, before };
        terminal.resize();
        terminal
    }

    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            // A terminal that is going away has no size.
            let _ = pty::set_size(self.master.as_fd(), size.ws_row, size.ws_col);
        }
    }

    /// Copies once from the container; false at its end.
    fn show(&mut self) -> bool {
        let mut buffer = [0u8; 16384];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                let mut out = std::io::stdout();
                let written = out.write_all(&buffer[..count]).and_then(|()| out.flush());
                written.is_ok() || !isatty(stdout())
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            // EIO: nobody has the other end open any more.
            Err(_) => false,
        }
    }

    /// Copies once from our stdin.
    fn feed(&mut self) {
        let mut buffer = [0u8; 4096];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) => self.reads_stdin = false,
            Ok(count) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    match rustix::io::write(&self.master, rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::INTR) => {}
                        Err(_) => return,
                    }
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.reads_stdin = false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
