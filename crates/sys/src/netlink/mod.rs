//! Netlink: a socket, requests in batches, and the rtnetlink messages we need
//! (netlink(7), rtnetlink(7)).
//!
//! The kernel handles a request inside `send`, and produces the next part of a
//! dump inside `recv`: a reply is there or will never come, so that nothing
//! here waits. Invariant: a sequence number is used once, and what is left of
//! an earlier exchange is skipped.
//!
//! Not here: which links a container needs (`capsa-net`), nf_tables
//! (`crate::nftables`).

mod address;
mod conntrack;
mod link;
pub mod message;
mod within;

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_send_buffer_size_force;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

use crate::{Error, Result};

pub use address::{Address, Route, RouteTarget};
pub use link::{Bridge, Link, LinkStats, PortOptions, Veth};
pub use message::{Messages, Reply};
pub use within::{own_namespace, within};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR_HAS_ATTRIBUTES: u16 = 0x200;
const ERROR_TEXT: u16 = 1;
/// Below every kernel's default send buffer.
const SEND_BYTES: usize = 96 << 10;
const RECEIVE_BYTES: usize = 64 << 10;
const DUMP_TRIES: usize = 8;

/// A netlink socket with its buffer. It belongs for ever to the network
/// namespace in which it was opened; closing it needs nothing else.
#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// An rtnetlink socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<Self> {
        Self::open_protocol(None)
    }

    /// An rtnetlink socket in `netns`; the calling thread is back on return.
    ///
    /// # Errors
    /// As [`within`], or when the kernel gives no socket.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self> {
        within(netns, Self::open)?
    }

    /// An nfnetlink socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no netfilter.
    pub fn open_netfilter() -> Result<Self> {
        Self::open_protocol(Some(rustix::net::netlink::NETFILTER))
    }

    /// A socket that receives the notifications of an nfnetlink group (a bit
    /// mask), not blocking.
    ///
    /// # Errors
    /// When the kernel has no netfilter.
    pub fn watch_netfilter(groups: u32) -> Result<Self> {
        let socket = Self::open_netfilter()?;
        bind(&socket.fd, &SocketAddrNetlink::new(0, groups))
            .map_err(|errno| Error::new("bind", "netlink group", errno))?;
        Ok(socket)
    }

    fn open_protocol(protocol: Option<Protocol>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .map_err(|errno| Error::new("socket", "netlink", errno))?;
        set_option(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        set_option(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        Ok(Self { fd, next_sequence: 1, buffer: Vec::new() })
    }

    /// Sends `messages` at once and waits for the kernel to have done them.
    /// rtnetlink does each on its own: those behind a failing one are tried.
    ///
    /// # Errors
    /// The first refusal, named by the message's label.
    pub fn execute(&mut self, messages: &mut Messages) -> Result<()> {
        let last = messages.len().saturating_sub(1);
        self.exchange(messages, last, Some(last), &mut |_| {})
    }

    /// Sends one request and hands every reply to `each`. A dump that the
    /// kernel says was torn by a change starts over, so `each` may see entries
    /// twice; `restart` is called before it does.
    ///
    /// # Errors
    /// The kernel's refusal, or `EINTR` when every try was torn.
    pub fn dump(
        &mut self,
        request: &mut Messages,
        restart: &mut dyn FnMut(),
        each: &mut dyn FnMut(Reply<'_>),
    ) -> Result<()> {
        for _ in 0..DUMP_TRIES {
            restart();
            let mut torn = false;
            self.exchange(request, 0, None, &mut |reply| {
                torn |= reply.flags & DUMP_INTERRUPTED != 0;
                if reply.kind != DONE {
                    each(reply);
                }
            })?;
            if !torn {
                return Ok(());
            }
        }
        Err(refusal(request, 0, Errno::INTR, None))
    }

    /// Receives what has come without being asked for; `false` if nothing is
    /// there. `ENOBUFS` means that notifications were lost.
    ///
    /// # Errors
    /// As recv(2).
    pub fn notifications(&mut self, each: &mut dyn FnMut(Reply<'_>)) -> Result<bool> {
        match self.receive() {
            Ok(length) => {
                message::Replies(&self.buffer[..length]).for_each(each);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Error::new("recv", "netlink notification", errno)),
        }
    }

    /// Sends and reads until the answer to message `last` has come. `acked` is
    /// the message that shall ask for an acknowledgement.
    pub(crate) fn exchange(
        &mut self,
        messages: &mut Messages,
        last: usize,
        acked: Option<usize>,
        each: &mut dyn FnMut(Reply<'_>),
    ) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.next_sequence;
        self.next_sequence = first.wrapping_add(messages.len() as u32);
        if messages.byte_len() > SEND_BYTES {
            set_socket_send_buffer_size_force(&self.fd, messages.byte_len())
                .map_err(|errno| refusal(messages, 0, errno, None))?;
        }
        send(&self.fd, messages.seal(first, acked), SendFlags::empty())
            .map_err(|errno| refusal(messages, 0, errno, None))?;
        loop {
            let length = match self.receive() {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Err(refusal(messages, last, Errno::PROTO, None)),
                Err(errno) => return Err(refusal(messages, last, errno, None)),
            };
            for reply in message::Replies(&self.buffer[..length]) {
                let index = reply.sequence.wrapping_sub(first) as usize;
                if index >= messages.len() {
                    continue;
                }
                if let Some((errno, text)) = failure(&reply) {
                    return Err(refusal(messages, index, errno, text));
                }
                match reply.kind {
                    ERROR if index == last => return Ok(()),
                    ERROR => {}
                    DONE => {
                        each(reply);
                        return Ok(());
                    }
                    _ => each(reply),
                }
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            match recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The errno and the kernel's words, if this reply is a refusal.
fn failure<'a>(reply: &Reply<'a>) -> Option<(Errno, Option<&'a str>)> {
    if reply.kind != ERROR && reply.kind != DONE {
        return None;
    }
    let code = message::read_u32(reply.body)? as i32;
    if code >= 0 {
        return None;
    }
    let head = if reply.kind == ERROR { 4 + 16 } else { 4 };
    let text = (reply.flags & ERROR_HAS_ATTRIBUTES != 0)
        .then(|| reply.attributes(head).find(ERROR_TEXT))
        .flatten()
        .and_then(|attribute| attribute.text());
    Some((Errno::from_raw_os_error(-code), text))
}

fn refusal(messages: &Messages, index: usize, errno: Errno, text: Option<&str>) -> Error {
    let label = messages.label(index).cloned().unwrap_or_default();
    match text {
        Some(text) => Error::new(label.call, format_args!("{} ({text})", label.object), errno),
        None => Error::new(label.call, label.object, errno),
    }
}

fn set_option(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(2) reads `size_of(on)` bytes at `&on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Error::from_io("setsockopt", "netlink", &error))
}
