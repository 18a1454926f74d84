//! Reserving a port by binding it, so that host processes and other engines
//! see it as taken, and we see theirs.
//!
//! The socket never listens: a connection that misses the table (someone
//! flushed it) is refused at once instead of hanging in a backlog.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_reuseaddr, set_socket_send_buffer_size,
};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with,
};

use crate::{Error, Net, Protocol, Result, held_by};

impl Net {
    /// Takes a port of the host: the descriptor holds it until it's closed.
    /// `address` `None` means all, `port` 0 lets the kernel choose; the port is
    /// given back with the descriptor.
    ///
    /// # Errors
    /// [`Error::PortTaken`] with its holder, [`Error::NoSuchAddress`].
    pub fn reserve(
        &self,
        protocol: Protocol,
        address: Option<Ipv4Addr>,
        port: u16,
    ) -> Result<(OwnedFd, u16)> {
        let ip = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let wanted = SocketAddrV4::new(ip, port);
        let bound = match bound(protocol, wanted) {
            Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => bound_over_time_wait(wanted),
            other => other,
        };
        let holder = || held_by(protocol, address, port);
        let fd = bound.map_err(|errno| match errno {
            Errno::ADDRINUSE => Error::PortTaken { protocol, address, port, holder: holder() },
            Errno::ADDRNOTAVAIL => Error::NoSuchAddress { address: ip },
            errno => reserve_error(protocol, wanted, errno),
        })?;
        let actual = match port {
            0 => port_of(&fd).map_err(|errno| reserve_error(protocol, wanted, errno))?,
            port => port,
        };
        Ok((fd, actual))
    }
}

fn bound(protocol: Protocol, address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let fd = unbound(protocol)?;
    bind(&fd, &address)?;
    Ok(fd)
}

/// A listener that was here a moment ago leaves connections in TIME_WAIT, over
/// which only `SO_REUSEADDR` binds. That would also bind beside another
/// reusing socket, so listening, which the kernel checks strictly, decides;
/// then everything is as if the socket had been bound the plain way.
fn bound_over_time_wait(address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let probe = unbound(Protocol::Tcp)?;
    set_socket_reuseaddr(&probe, true)?;
    bind(&probe, &address)?;
    listen(&probe, 0)?;
    drop(probe);
    let fd = unbound(Protocol::Tcp)?;
    set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &address)?;
    set_socket_reuseaddr(&fd, false)?;
    Ok(fd)
}

fn unbound(protocol: Protocol) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let fd = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(number))?;
    // Nothing shall ever be read from it: the least memory the kernel gives.
    set_socket_recv_buffer_size(&fd, 0)?;
    set_socket_send_buffer_size(&fd, 0)?;
    Ok(fd)
}

fn port_of(fd: &OwnedFd) -> Result<u16, Errno> {
    let address: SocketAddrV4 = getsockname(fd)?.try_into()?;
    Ok(address.port())
}

fn reserve_error(protocol: Protocol, address: SocketAddrV4, errno: Errno) -> Error {
    Error::Socket { step: format!("reserve {address}/{protocol}"), source: errno.into() }
}
