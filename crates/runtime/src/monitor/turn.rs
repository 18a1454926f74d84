//! One turn of the monitor's loop: wait for whatever its state asks for.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::execs::Part;
use super::streams::Source;

/// Whose descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The daemon's messages.
    Control,
    /// A new daemon.
    Listener,
    /// Init's report.
    Report,
    /// A stream of the container.
    Stream(Source),
    /// An exec, by serial.
    Exec(u64, Part),
    /// The container's first process.
    Process,
}

/// Descriptors to wait for, in the order in which they are looked at.
#[derive(Default)]
pub(super) struct Turn<'a> {
    tokens: Vec<Token>,
    fds: Vec<PollFd<'a>>,
}

impl<'a> Turn<'a> {
    pub(super) fn add(&mut self, token: Token, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.tokens.push(token);
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    /// Blocks until something is ready, or nothing was for `quiet`.
    pub(super) fn wait(mut self, quiet: Option<&Timespec>) -> Vec<(Token, PollFlags)> {
        while let Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) =
            rustix::event::poll(&mut self.fds, quiet)
        {}
        let ready = self.tokens.iter().zip(&self.fds).map(|(token, fd)| (*token, fd.revents()));
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }
}
