//! Names for containers: the sockets inside, and the answers.
//!
//! A container asks 127.0.0.11 in its own namespace; the sockets there belong
//! to the daemon, which answers for names of the container's networks and
//! forwards the rest from the host. So neither the host's port 53 nor the
//! packet filter has a part in it.
//!
//! Invariant: open sockets keep the namespace alive, so whoever holds them
//! closes them when the container ends.
//!
//! Not here: reading from the sockets and forwarding (`capsa-engine`).

mod answer;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use capsa_sys::netlink::within;
use capsa_sys::nftables::{
    Base, BaseChain, Batch, ChainKind, Comparison, Expression, Family, Hook, MetaKey, Nftables,
    Register,
};

use crate::files::NAMESERVER;
use crate::{Error, Protocol, Result};

pub use answer::{Answer, answer, failure, for_datagram, refuse};

const PORT: u16 = 53;
const TABLE: &str = "capsa_dns";

/// A container's name server: non-blocking sockets in its namespace.
#[derive(Debug)]
pub struct DnsSockets {
    /// Questions come here.
    pub udp: UdpSocket,
    /// And here, if the answer didn't fit a datagram.
    pub tcp: TcpListener,
}

/// Binds 127.0.0.11:53 in `netns`, whose `lo` must be up for anyone to reach it
/// ([`crate::Net::attach`] sees to that). A server in the container can then not bind
/// port 53 of all addresses; for containers that serve that port there is
/// [`bind_behind`].
///
/// # Errors
/// When the namespace can't be entered, or the port is taken there.
pub fn bind_in(netns: BorrowedFd<'_>) -> Result<DnsSockets> {
    within(netns, || bind(PORT)).map_err(Error::kernel("enter the container's network"))?
}

/// The same for a container that serves port 53 itself: binds a free port, and
/// rules in the container's namespace lead there. Dearer than [`bind_in`],
/// because the container's connections are tracked from then on.
///
/// # Errors
/// As [`bind_in`], or when the kernel refuses the rules.
pub fn bind_behind(netns: BorrowedFd<'_>) -> Result<DnsSockets> {
    within(netns, || {
        let sockets = bind(0)?;
        redirect(port_of(sockets.udp.local_addr())?, port_of(sockets.tcp.local_addr())?)?;
        Ok(sockets)
    })
    .map_err(Error::kernel("enter the container's network"))?
}

fn bind(port: u16) -> Result<DnsSockets> {
    let address = SocketAddrV4::new(NAMESERVER, port);
    let step = |source| Error::Socket { step: format!("bind {address} in the container"), source };
    let udp = UdpSocket::bind(address).map_err(step)?;
    let tcp = TcpListener::bind(address).map_err(step)?;
    udp.set_nonblocking(true).map_err(step)?;
    tcp.set_nonblocking(true).map_err(step)?;
    Ok(DnsSockets { udp, tcp })
}

fn port_of(address: std::io::Result<SocketAddr>) -> Result<u16> {
    let address = address.map_err(|source| Error::Socket {
        step: format!("look up the port bound on {NAMESERVER}"),
        source,
    })?;
    Ok(address.port())
}

fn redirect(udp: u16, tcp: u16) -> Result<()> {
    let chain = "redirect";
    let step = || Error::kernel("lead the container's questions to the name server");
    let mut nftables = Nftables::open().map_err(step())?;
    let mut batch = Batch::new(Family::Ip, TABLE);
    // Deleting is dear, and needed only after a restart of ours.
    if nftables.has_table(Family::Ip, TABLE).map_err(step())? {
        batch.delete_table();
    }
    batch.add_table("made by capsa");
    batch.add_chain(&BaseChain {
        name: chain,
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: -100,
    });
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        add_redirect(&mut batch, chain, protocol, port);
    }
    nftables.commit(batch).map_err(step())
}

fn add_redirect(batch: &mut Batch, chain: &str, protocol: Protocol, port: u16) {
    let (address, port_register) = (Register(0), Register(1));
    let server: [u8; 4] = Ipv4Addr::octets(&NAMESERVER);
    let is = |register, value| Expression::Compare(register, Comparison::Equal, value);
    let network = Expression::Payload { base: Base::Network, offset: 16, length: 4, to: address };
    let transport =
        Expression::Payload { base: Base::Transport, offset: 2, length: 2, to: address };
    batch.add_rule(
        chain,
        &[
            network,
            is(address, &server),
            Expression::Meta(MetaKey::TransportProtocol, address),
            is(address, &[protocol as u8]),
            transport,
            is(address, &PORT.to_be_bytes()),
            Expression::Immediate(address, &server),
            Expression::Immediate(port_register, &port.to_be_bytes()),
            Expression::DestinationNat { address, port: port_register },
        ],
        "",
    );
}
