//! Message channels between our own processes: SEQPACKET sockets that carry
//! descriptors.
//!
//! One send is one message, whole or not at all; descriptors arrive close-on-exec.
//! What the bytes mean is not known here.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::{Error, Result};

/// Most descriptors in one message (SCM_MAX_FD, unix(7)).
pub const MAX_FDS: usize = 253;
/// Length of `sun_path` with its terminating zero.
const SUN_PATH_MAX: usize = 108;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Two connected ends, both close-on-exec.
    pub fn pair() -> Result<(Self, Self)> {
        let kind = SocketType::SEQPACKET;
        let ends = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let (a, b) = ends.map_err(|e| Error::new("socketpair", "channel", e))?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Connects to whoever listens at `path`.
    pub fn connect(path: &Path) -> Result<Self> {
        let fd = socket()?;
        let (address, _dir) = address_of(path)?;
        rustix::net::connect(&fd, &address)
            .map_err(|e| Error::new("connect", path.display(), e))?;
        Ok(Self { fd })
    }

    /// A socket at `path` on which [`Channel::accept`] works. The caller removes the path.
    pub fn listen(path: &Path) -> Result<Self> {
        let fd = socket()?;
        let (address, _dir) = address_of(path)?;
        rustix::net::bind(&fd, &address).map_err(|e| Error::new("bind", path.display(), e))?;
        rustix::net::listen(&fd, 16).map_err(|e| Error::new("listen", path.display(), e))?;
        Ok(Self { fd })
    }

    /// Takes the next connection; blocks until there is one.
    pub fn accept(&self) -> Result<Self> {
        rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC)
            .map(|fd| Self { fd })
            .map_err(|e| Error::new("accept", "channel", e))
    }

    /// Whether the other end is closed. Unread messages of it may still be there.
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // POLLHUP needs no asking, poll(2).
        let told = rustix::event::poll(&mut fds, Some(&now));
        told.is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Sends one message (not empty) and descriptors; blocks while the buffer is full.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// As [`Channel::send`], but a full buffer is `EAGAIN`.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> Result<()> {
        let mut space = Vec::new();
        if !fds.is_empty() {
            let size = SendAncillaryMessage::ScmRights(fds).size();
            space.resize(size, MaybeUninit::uninit());
        }
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::new("sendmsg", "channel", Errno::TOOMANYREFS));
        }
        loop {
            match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::new("sendmsg", "channel", e)),
            }
        }
    }

    /// Receives one message into `bytes` (replaced) and its descriptors; blocks until
    /// there is one. `None` when the other end is closed.
    pub fn recv(&self, bytes: &mut Vec<u8>) -> Result<Option<Vec<OwnedFd>>> {
        let failed = |e| Error::new("recvmsg", "channel", e);
        let size = match self.next_len() {
            Ok(0) => return Ok(None),
            other => other.map_err(failed)?,
        };
        bytes.clear();
        bytes.resize(size, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(bytes)];
        let got =
            rustix::net::recvmsg(&self.fd, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
                .map_err(failed)?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        bytes.truncate(got.bytes);
        Ok(Some(fds))
    }

    /// Length of the next message; 0 at the end.
    fn next_len(&self) -> Result<usize, Errno> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        loop {
            let mut none: [u8; 1] = [0];
            match rustix::net::recv(&self.fd, &mut none, flags) {
                Ok((_, length)) => return Ok(length),
                // The other end was closed with unread messages of ours. The kernel tells
                // that once, before what is still to be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.fd
    }
}

fn socket() -> Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::new("socket", "unix seqpacket", e))
}

/// The address of `path`. A path too long for the kernel is named through its
/// directory, which must stay open until the address has been used.
fn address_of(path: &Path) -> Result<(SocketAddrUnix, Option<OwnedFd>)> {
    let failed = |e| Error::new("address", path.display(), e);
    if path.as_os_str().len() < SUN_PATH_MAX {
        return Ok((SocketAddrUnix::new(path).map_err(failed)?, None));
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or(OsStr::new(""));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((SocketAddrUnix::new(&short).map_err(failed)?, Some(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_end_is_seen_before_its_messages_are_read() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"last", &[]).unwrap();
        assert!(!b.is_closed());
        drop(a);
        assert!(b.is_closed());
        assert!(b.recv(&mut Vec::new()).unwrap().is_some());
    }

    #[test]
    fn messages_keep_their_bounds_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"one", &[]).unwrap();
        a.send(&[7; 50_000], &[a.as_fd(), b.as_fd()]).unwrap();
        drop(a);
        let mut bytes = Vec::new();
        assert_eq!(b.recv(&mut bytes).unwrap().unwrap().len(), 0);
        assert_eq!(bytes, b"one");
        let fds = b.recv(&mut bytes).unwrap().unwrap();
        assert_eq!((bytes.len(), fds.len()), (50_000, 2));
        drop(fds);
        assert!(b.recv(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_though_ours_were_not() {
        let (a, b) = Channel::pair().unwrap();
        b.send(b"unread", &[]).unwrap();
        a.send(b"last words", &[]).unwrap();
        drop(a);
        let mut bytes = Vec::new();
        assert!(b.recv(&mut bytes).unwrap().is_some());
        assert_eq!(bytes, b"last words");
        assert!(b.recv(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn a_path_of_any_length_can_be_listened_on() {
        let base = std::env::temp_dir().join(format!("capsa-channel-{}", std::process::id()));
        let dir = base.join("d".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let listener = Channel::listen(&path).unwrap();
        let client = Channel::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        client.send(b"hello", &[]).unwrap();
        let mut bytes = Vec::new();
        server.recv(&mut bytes).unwrap();
        assert_eq!(bytes, b"hello");
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_full_buffer_does_not_block_a_try() {
        let (a, _b) = Channel::pair().unwrap();
        let errno = loop {
            if let Err(error) = a.try_send(&[0; 4096], &[]) {
                break error.errno;
            }
        };
        assert_eq!(errno, Errno::AGAIN);
    }
}
