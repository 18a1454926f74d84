//! The async end of a monitor's control channel.
//!
//! Requests and events are JSON, one to a message; descriptors travel beside
//! them. Losing the channel after the start harms nothing: the monitor goes on,
//! and the next daemon finds it by its socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use capsa_runtime::protocol::{self, Event, Request};
use capsa_sys::channel::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watched::watched;
use crate::{Error, Result};

const SIGKILL: i32 = 9;
/// How long a monitor may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// One end of the conversation with a monitor.
#[derive(Debug)]
pub(crate) struct MonitorLink {
    channel: AsyncFd<Channel>,
}

impl MonitorLink {
    /// Takes over a channel and makes it non-blocking.
    pub(crate) fn new(channel: Channel) -> Result<Self> {
        rustix::io::ioctl_fionbio(channel.as_fd(), true).map_err(|errno| lost(&errno))?;
        let channel = watched(channel).map_err(|error| lost(&error))?;
        Ok(Self { channel })
    }

    /// Sends a request with its descriptors; they stay the caller's.
    pub(crate) async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel
            .async_io(Interest::WRITABLE, |channel| {
                protocol::send(channel, request, fds).map_err(io)
            })
            .await
            .map_err(|error| lost(&error))
    }

    /// Makes the monitor kill and unmake what it has made, and waits for that: until then
    /// its work would be in the way of the next start.
    pub(crate) async fn end(mut self) {
        // Without effect on one that has failed by itself.
        let _ = self.send(&Request::Signal { signal: SIGKILL, all: false }, &[]).await;
        let unmade = async {
            while !matches!(self.next().await, None | Some(Event::Failed(_) | Event::Exited(_))) {}
        };
        if tokio::time::timeout(PATIENCE, unmade).await.is_err() {
            tracing::warn!("the monitor of a start that failed does not end");
        }
    }

    /// The next event; `None` when the monitor has gone.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let received = self
            .channel
            .async_io(Interest::READABLE, |channel| protocol::recv(channel).map_err(io))
            .await;
        match received {
            Ok(Some((event, _))) => Some(event),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "unreadable message of a monitor");
                None
            }
        }
    }
}

/// Keeps the errno, by which "try again" is told from a failure.
fn io(error: capsa_runtime::Error) -> std::io::Error {
    match error {
        capsa_runtime::Error::Kernel(error) => error.errno.into(),
        other => std::io::Error::other(other),
    }
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::kernel(format!("the container's monitor does not answer: {error}"))
}
