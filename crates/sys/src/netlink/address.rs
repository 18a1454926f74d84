//! IPv4 addresses and routes (rtnetlink(7), `linux/if_addr.h`,
//! `linux/rtnetlink.h`).

use std::cell::RefCell;
use std::net::Ipv4Addr;

use super::message::{Attribute, CREATE, DUMP, EXCL, Messages, Reply, read_u32};
use super::{NetlinkSocket, Result};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const ADDRESS_HEAD: usize = 8;
const ROUTE_HEAD: usize = 12;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// An IPv4 address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix in bits.
    pub prefix: u8,
}

/// An IPv4 route of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network it leads to.
    pub destination: Ipv4Addr,
    /// The length of that network's prefix in bits; 0 is the default route.
    pub prefix: u8,
    /// The link it leaves by, if it has one.
    pub link: Option<u32>,
    /// The routing table (254 is main, 255 local).
    pub table: u8,
}

/// Where a new route leads.
#[derive(Clone, Copy, Debug)]
pub enum RouteTarget {
    /// To this neighbour.
    Gateway(Ipv4Addr),
    /// Straight onto the link.
    Link,
}

impl Messages {
    /// Gives a link an address; `EEXIST` if it has it.
    pub fn add_address(&mut self, name: &str, address: &Address) {
        let Address { link, address, prefix } = *address;
        let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(address.to_bits() | mask);
        let head = address_head(link, prefix);
        self.message((RTM_NEWADDR, CREATE | EXCL), ("add address to", name), &head, |m| {
            m.bytes(IFA_LOCAL, &address.octets());
            m.bytes(IFA_ADDRESS, &address.octets());
            if prefix < 31 {
                m.bytes(IFA_BROADCAST, &broadcast.octets());
            }
        });
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, name: &str, address: &Address) {
        let head = address_head(address.link, address.prefix);
        self.message((RTM_DELADDR, 0), ("delete address from", name), &head, |m| {
            m.bytes(IFA_LOCAL, &address.address.octets());
        });
    }

    /// Adds a route to the main table; `EEXIST` if the same exists.
    pub fn add_route(&mut self, name: &str, route: &Route, target: RouteTarget) {
        let scope = match target {
            RouteTarget::Gateway(_) => RT_SCOPE_UNIVERSE,
            RouteTarget::Link => RT_SCOPE_LINK,
        };
        let head = [
            AF_INET,
            route.prefix,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            scope,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        self.message((RTM_NEWROUTE, CREATE | EXCL), ("add route by", name), &head, |m| {
            if route.prefix > 0 {
                m.bytes(RTA_DST, &route.destination.octets());
            }
            if let RouteTarget::Gateway(gateway) = target {
                m.bytes(RTA_GATEWAY, &gateway.octets());
            }
            if let Some(link) = route.link {
                m.u32(RTA_OIF, link);
            }
        });
    }
}

impl NetlinkSocket {
    /// All IPv4 addresses of the socket's namespace.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let head = address_head(0, 0);
        self.list((RTM_GETADDR, "addresses"), &head, address_of)
    }

    /// All IPv4 routes of the socket's namespace, of every table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut head = [0; ROUTE_HEAD];
        head[0] = AF_INET;
        self.list((RTM_GETROUTE, "routes"), &head, route_of)
    }

    fn list<T>(
        &mut self,
        (kind, what): (u16, &'static str),
        head: &[u8],
        decode: fn(&Reply<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut request = Messages::new();
        request.message((kind, DUMP), ("list", what), head, |_| {});
        let entries = RefCell::new(Vec::new());
        self.dump(&mut request, &mut || entries.borrow_mut().clear(), &mut |reply| {
            entries.borrow_mut().extend(decode(&reply))
        })?;
        Ok(entries.into_inner())
    }
}

/// `struct ifaddrmsg`.
fn address_head(link: u32, prefix: u8) -> [u8; ADDRESS_HEAD] {
    let mut head = [AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&link.to_ne_bytes());
    head
}

fn address_of(reply: &Reply<'_>) -> Option<Address> {
    if reply.kind != RTM_NEWADDR || *reply.body.first()? != AF_INET {
        return None;
    }
    let local = reply.attributes(ADDRESS_HEAD).find(IFA_LOCAL);
    let address = local.or_else(|| reply.attributes(ADDRESS_HEAD).find(IFA_ADDRESS))?;
    Some(Address {
        link: read_u32(reply.body.get(4..)?)?,
        address: ipv4(&address)?,
        prefix: *reply.body.get(1)?,
    })
}

fn route_of(reply: &Reply<'_>) -> Option<Route> {
    if reply.kind != RTM_NEWROUTE || *reply.body.first()? != AF_INET {
        return None;
    }
    let destination = reply.attributes(ROUTE_HEAD).find(RTA_DST);
    Some(Route {
        destination: destination.map_or(Some(Ipv4Addr::UNSPECIFIED), |a| ipv4(&a))?,
        prefix: *reply.body.get(1)?,
        link: reply.attributes(ROUTE_HEAD).find(RTA_OIF).and_then(|a| a.u32()),
        table: *reply.body.get(4)?,
    })
}

fn ipv4(attribute: &Attribute<'_>) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = attribute.value.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}
