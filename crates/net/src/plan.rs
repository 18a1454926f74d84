//! Networks as data: what the caller wants, already decided.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use ipnet::Ipv4Net;

/// How an instance is told apart from others on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The name of its nf_tables table, `capsa0`. Its links are found by a
    /// device group that follows from it.
    pub table: String,
}

/// A bridge and the rules that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The interface name, at most 15 bytes.
    pub name: String,
    /// The addresses of its containers.
    pub subnet: Ipv4Net,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// MTU in bytes; 1500 if `None`.
    pub mtu: Option<u32>,
    /// No way out of the bridge and none in, not even by published ports.
    pub internal: bool,
    /// Outgoing connections get the host's address.
    pub masquerade: bool,
    /// Containers on it may talk to each other.
    pub icc: bool,
}

/// One container's end on one bridge.
#[derive(Clone, Debug)]
pub struct EndpointPlan<'a> {
    /// Unique among endpoints in its first 11 characters: names the host's end.
    pub id: String,
    /// The bridge's interface name.
    pub bridge: String,
    /// The container's network namespace.
    pub netns: BorrowedFd<'a>,
    /// The name inside, `eth0`.
    pub ifname: String,
    /// The address inside.
    pub ipv4: Ipv4Addr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// Where the default route leads, if there shall be one.
    pub gateway: Option<Ipv4Addr>,
    /// The MAC inside.
    pub mac: Mac,
    /// MTU in bytes; 1500 if `None`.
    pub mtu: Option<u32>,
    /// No frames to other isolated endpoints: set it if the bridge has no
    /// `icc`.
    pub isolated: bool,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address it is published on; `None` for all.
    pub host_ip: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The container's address and port.
    pub to: SocketAddrV4,
    /// Whose it is, for people and for recovery: the container's id.
    pub owner: String,
}

/// Transport protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A string that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address {0:?}: want six pairs of hex digits with colons")]
pub struct MacError(String);

impl PortMap {
    /// The address published on, with `0.0.0.0` meaning all.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }
}

impl Protocol {
    /// The protocol with this IP protocol number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| *protocol as u8 == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        parts.next().is_none().then_some(Self(octets)).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_and_written() {
        assert_eq!(
            "02:42:AC:11:00:02".parse::<Mac>().map(|mac| mac.to_string()).as_deref(),
            Ok("02:42:ac:11:00:02")
        );
        for wrong in ["", "02:42", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
