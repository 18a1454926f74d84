//! The terminal on our standard streams: is there one, how large is it, raw mode.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input is a terminal.
pub(crate) fn stdin_is() -> bool {
    isatty(stdin())
}

/// Standard output is a terminal.
pub(crate) fn stdout_is() -> bool {
    isatty(stdout())
}

/// Rows and columns of the terminal on standard output, or on standard input.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Columns, when standard output is a terminal that knows them.
pub(crate) fn columns() -> Option<usize> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Waits until standard output or standard error takes more (somebody made them
/// non-blocking).
pub(crate) fn wait_writable() {
    let mut fds = [
        PollFd::from_borrowed_fd(stdout(), PollFlags::OUT),
        PollFd::from_borrowed_fd(stderr(), PollFlags::OUT),
    ];
    let _ = poll(&mut fds, None);
}

/// Standard input in raw mode; the former mode comes back when it is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Switches; the container's own terminal does echo and line editing from here on.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
