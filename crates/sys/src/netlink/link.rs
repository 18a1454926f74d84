//! Links: bridges, veth pairs, their options and counters (rtnetlink(7),
//! `linux/if_link.h`).
//!
//! A veth pair is made by one message: the host's end comes up as a port of
//! its bridge, the other is born in the container's namespace. Never moved,
//! because moving a device waits for RCU; never `IFF_UP` on the peer in that
//! message, because the kernel opens it before the pair is tied (`ENOTCONN`).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Attributes, CREATE, DUMP, EXCL, Messages, Reply};
use super::{NetlinkSocket, Result};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
const INFO_HEAD: usize = 16;

/// A bridge to be made, up at once.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// A fixed MAC, so that it doesn't follow the ports'.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// Its device group: how its owner finds it again.
    pub group: u32,
    /// A sentence for people (`ip link` shows it as alias).
    pub alias: &'a str,
}

/// A veth pair to be made.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// The host's end.
    pub name: &'a str,
    /// The index of the host's end; `None` lets the kernel choose.
    pub index: Option<u32>,
    /// The device group of the host's end.
    pub group: u32,
    /// The index of the bridge that the host's end becomes a port of.
    pub master: u32,
    /// The name of the end in `netns`.
    pub peer_name: &'a str,
    /// The index of that end; only honoured together with `index`.
    pub peer_index: Option<u32>,
    /// Its MAC.
    pub peer_mac: [u8; 6],
    /// Where that end is born.
    pub netns: BorrowedFd<'a>,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// What a bridge port may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortOptions {
    /// Frames may leave by the port they came from.
    pub hairpin: bool,
    /// No frames to other isolated ports.
    pub isolated: bool,
}

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// Its device group; 0 is everyone's.
    pub group: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its MAC, if it has an Ethernet one.
    pub mac: Option<[u8; 6]>,
}

/// The counters of a link since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets that couldn't be sent.
    pub tx_errors: u64,
    /// Received but not handled for lack of room.
    pub rx_dropped: u64,
    /// Not sent for lack of room.
    pub tx_dropped: u64,
}

impl Messages {
    /// Makes a bridge; fails with `EEXIST` if the name is taken.
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) {
        let kind = (RTM_NEWLINK, CREATE | EXCL);
        self.message(kind, ("make bridge", bridge.name), &info(0, 0, IFF_UP), |m| {
            m.string(IFLA_IFNAME, bridge.name);
            m.bytes(IFLA_ADDRESS, &bridge.mac);
            m.u32(IFLA_GROUP, bridge.group);
            m.nested(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, "bridge");
                m.nested(IFLA_INFO_DATA, |m| m.bytes(IFLA_BR_MCAST_SNOOPING, &[0]));
            });
        });
        self.message((RTM_NEWLINK, 0), ("name bridge", bridge.name), &info(0, 0, 0), |m| {
            m.string(IFLA_IFNAME, bridge.name);
            m.string(IFLA_IFALIAS, bridge.alias);
            // Given at birth it would be forgotten with the first port.
            m.u32(IFLA_MTU, bridge.mtu);
        });
    }

    /// Makes a veth pair.
    pub fn add_veth(&mut self, veth: &Veth<'_>) {
        let host = info(0, veth.index.unwrap_or(0), IFF_UP);
        let peer = info(0, veth.peer_index.unwrap_or(0), 0);
        self.message((RTM_NEWLINK, CREATE | EXCL), ("make veth", veth.name), &host, |m| {
            m.string(IFLA_IFNAME, veth.name);
            m.u32(IFLA_MTU, veth.mtu);
            m.u32(IFLA_GROUP, veth.group);
            m.u32(IFLA_MASTER, veth.master);
            m.nested(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, "veth");
                m.nested(IFLA_INFO_DATA, |m| {
                    m.nested_behind(VETH_INFO_PEER, &peer, |m| {
                        m.string(IFLA_IFNAME, veth.peer_name);
                        m.bytes(IFLA_ADDRESS, &veth.peer_mac);
                        m.u32(IFLA_MTU, veth.mtu);
                        m.u32(IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32);
                    });
                });
            });
        });
    }

    /// Sets what a bridge port may do. `name` is for errors.
    pub fn set_port(&mut self, name: &str, index: u32, options: PortOptions) {
        let head = info(AF_BRIDGE, index, 0);
        self.message((RTM_SETLINK, 0), ("set bridge port", name), &head, |m| {
            m.nested(IFLA_PROTINFO, |m| {
                m.bytes(IFLA_BRPORT_MODE, &[u8::from(options.hairpin)]);
                m.bytes(IFLA_BRPORT_ISOLATED, &[u8::from(options.isolated)]);
            });
        });
    }

    /// Brings a link up. `name` is for errors if `index` isn't 0.
    pub fn set_up(&mut self, name: &str, index: u32) {
        self.message((RTM_NEWLINK, 0), ("bring up", name), &info(0, index, IFF_UP), |m| {
            if index == 0 {
                m.string(IFLA_IFNAME, name);
            }
        });
    }

    /// Sets a link's MTU in bytes. `name` is for errors.
    pub fn set_mtu(&mut self, name: &str, index: u32, mtu: u32) {
        let head = info(0, index, 0);
        self.message((RTM_NEWLINK, 0), ("set MTU of", name), &head, |m| m.u32(IFLA_MTU, mtu));
    }

    /// Removes a link by its name. This waits 8 to 30 ms for RCU.
    pub fn delete_link(&mut self, name: &str) {
        self.message((RTM_DELLINK, 0), ("delete link", name), &info(0, 0, 0), |m| {
            m.string(IFLA_IFNAME, name);
        });
    }

    /// Removes all links of a device group, waiting for RCU once.
    pub fn delete_group(&mut self, group: u32) {
        let object = group.to_string();
        self.message((RTM_DELLINK, 0), ("delete link group", &object), &info(0, 0, 0), |m| {
            m.u32(IFLA_GROUP, group);
        });
    }
}

impl NetlinkSocket {
    /// All links of the socket's namespace.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut request = Messages::new();
        request.message((RTM_GETLINK, DUMP), ("list", "links"), &info(0, 0, 0), |m| {
            m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
        let links = std::cell::RefCell::new(Vec::new());
        self.dump(&mut request, &mut || links.borrow_mut().clear(), &mut |reply| {
            links.borrow_mut().extend(link_of(&reply))
        })?;
        Ok(links.into_inner())
    }

    /// The link of this name; an error with `ENODEV` if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let mut found = None;
        self.get_link(name, RTEXT_FILTER_SKIP_STATS, &mut |reply| found = link_of(reply))?;
        found.ok_or_else(|| crate::Error::new("look up link", name, rustix::io::Errno::NODEV))
    }

    /// The index of the link of this name, the quick way (netdevice(7)).
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn index_of(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(self, name)
            .map_err(|errno| crate::Error::new("look up link", name, errno))
    }

    /// The counters of the link of this name.
    ///
    /// # Errors
    /// The kernel's refusal, `ENODEV` if there is none.
    pub fn link_stats(&mut self, name: &str) -> Result<LinkStats> {
        let mut stats = LinkStats::default();
        self.get_link(name, 0, &mut |reply| {
            if let Some(attribute) = reply.attributes(INFO_HEAD).find(IFLA_STATS64) {
                stats = stats_of(attribute.value);
            }
        })?;
        Ok(stats)
    }

    fn get_link(&mut self, name: &str, mask: u32, each: &mut dyn FnMut(&Reply<'_>)) -> Result<()> {
        let mut request = Messages::new();
        request.message((RTM_GETLINK, 0), ("look up link", name), &info(0, 0, 0), |m| {
            m.string(IFLA_IFNAME, name);
            m.u32(IFLA_EXT_MASK, mask);
        });
        self.exchange(&mut request, 0, Some(0), &mut |reply| each(&reply))
    }
}

/// `struct ifinfomsg`; `flags` are both the new values and the mask.
fn info(family: u8, index: u32, flags: u32) -> [u8; INFO_HEAD] {
    let mut head = [0; INFO_HEAD];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&flags.to_ne_bytes());
    head
}

fn link_of(reply: &Reply<'_>) -> Option<Link> {
    if reply.kind != RTM_NEWLINK {
        return None;
    }
    let mut link = Link {
        index: super::message::read_u32(reply.body.get(4..)?)?,
        up: super::message::read_u32(reply.body.get(8..)?)? & IFF_UP != 0,
        name: String::new(),
        kind: String::new(),
        master: None,
        group: 0,
        mtu: 0,
        mac: None,
    };
    for attribute in reply.attributes(INFO_HEAD) {
        match attribute.kind {
            IFLA_IFNAME => link.name = attribute.text()?.to_owned(),
            IFLA_ADDRESS => link.mac = attribute.value.try_into().ok(),
            IFLA_MTU => link.mtu = attribute.u32()?,
            IFLA_MASTER => link.master = attribute.u32(),
            IFLA_GROUP => link.group = attribute.u32()?,
            IFLA_LINKINFO => link.kind = kind_of(attribute.nested()),
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(info: Attributes<'_>) -> String {
    info.find(IFLA_INFO_KIND).and_then(|kind| kind.text()).unwrap_or_default().to_owned()
}

/// `struct rtnl_link_stats64`, its first eight counters.
fn stats_of(bytes: &[u8]) -> LinkStats {
    let counter = |index: usize| {
        let at = bytes.get(index * 8..index * 8 + 8).and_then(|bytes| bytes.try_into().ok());
        at.map_or(0, u64::from_ne_bytes)
    };
    LinkStats {
        rx_packets: counter(0),
        tx_packets: counter(1),
        rx_bytes: counter(2),
        tx_bytes: counter(3),
        rx_errors: counter(4),
        tx_errors: counter(5),
        rx_dropped: counter(6),
        tx_dropped: counter(7),
    }
}
