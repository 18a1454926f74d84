//! The pipes between a container's first process and its monitor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::json_log::Log;
use super::streams::Streams;
use crate::error::Result;
use crate::launch::{self, Stdio};
use crate::protocol::CreateRequest;

/// The container's ends; to be dropped once it has them.
#[derive(Debug)]
pub(super) enum ContainerEnds {
    /// Stdin, stdout, stderr.
    Pipes([OwnedFd; 3]),
    /// It makes a terminal itself.
    Terminal(Option<(u16, u16)>),
}

impl ContainerEnds {
    pub(super) fn stdio(&self) -> Stdio<'_> {
        match self {
            Self::Pipes(fds) => Stdio::Fds([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]),
            Self::Terminal(size) => Stdio::Terminal(*size),
        }
    }
}

/// Both sides of the streams that `request` asks for.
pub(super) fn make(request: &CreateRequest) -> Result<(Streams, ContainerEnds)> {
    let plan = &request.stdio;
    let log = plan.log.as_ref().map(Log::open);
    if plan.tty {
        return Ok((Streams::of_terminal(log), ContainerEnds::Terminal(plan.console_size)));
    }
    let (stdin, input) = match plan.open_stdin {
        true => pipe().map(|(read, write)| (read, Some(write)))?,
        false => (null()?, None),
    };
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    if plan.open_stdin {
        own(request, stdin.as_fd());
    }
    own(request, stdout_end.as_fd());
    own(request, stderr_end.as_fd());
    let streams = Streams::of_pipes(stdout, stderr, input, plan.stdin_once, log)
        .map_err(|e| capsa_sys::Error::new("fcntl", "stdio", e))?;
    Ok((streams, ContainerEnds::Pipes([stdin, stdout_end, stderr_end])))
}

/// For stdin that nobody feeds.
pub(super) fn null() -> Result<OwnedFd> {
    rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| capsa_sys::Error::new("open", "/dev/null", e).into())
}

fn own(request: &CreateRequest, fd: BorrowedFd<'_>) {
    if let Some(process) = &request.spec.process {
        launch::own_stream(fd, request.spec.linux.as_ref(), &process.user);
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|e| capsa_sys::Error::new("pipe", "stdio", e).into())
}
