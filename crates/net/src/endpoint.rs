//! A container's end: a veth pair with an address, and its counters.
//!
//! One message makes the pair, one batch inside the container's namespace sets
//! it up. Both indexes are chosen by us so that nothing has to be looked up;
//! should the kernel refuse them, it chooses.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use std::os::fd::BorrowedFd;

use capsa_sys::netlink::{
    Address, LinkStats, Messages, NetlinkSocket, PortOptions, Route, RouteTarget, Veth, within,
};
use rustix::io::Errno;

use crate::bridge::{DEFAULT_MTU, check_name};
use crate::{EndpointPlan, Error, Net, Result, sysctl};

const LOOPBACK_INDEX: u32 = 1;
const ID_CHARACTERS: usize = 11;

impl Net {
    /// Connects a container's namespace to a bridge: `lo` and the new interface
    /// are up and have their routes when this returns. When the namespace dies,
    /// everything goes with it.
    ///
    /// # Errors
    /// The kernel's refusal; nothing is left behind then.
    pub fn attach(&self, plan: &EndpointPlan<'_>) -> Result<()> {
        check_name(&plan.ifname)?;
        let host_name = host_name(&plan.id);
        let peer_index = self.make_pair(plan, &host_name)?;
        let configured = configure_inside(plan, peer_index);
        if configured.is_err() {
            let mut undo = Messages::new();
            undo.delete_link(&host_name);
            // The first error is the one to tell.
            let _ = self.links().execute(&mut undo);
        }
        configured
    }

    /// Takes a container off a bridge, by the id of its endpoint. Waits 8 to
    /// 30 ms for the kernel; not needed when the namespace dies. Does nothing if
    /// it is gone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn detach(&self, id: &str) -> Result<()> {
        let name = host_name(id);
        let mut request = Messages::new();
        request.delete_link(&name);
        match self.links().execute(&mut request) {
            Err(error) if error.errno != Errno::NODEV => {
                Err(Error::kernel(format!("detach {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// The counters of an endpoint as the container sees them.
    ///
    /// # Errors
    /// The kernel's refusal, `ENODEV` if it is gone.
    pub fn stats(&self, id: &str) -> Result<LinkStats> {
        let name = host_name(id);
        let host = self.links().link_stats(&name);
        let host = host.map_err(Error::kernel(format!("read counters of {name}")))?;
        Ok(LinkStats {
            rx_packets: host.tx_packets,
            tx_packets: host.rx_packets,
            rx_bytes: host.tx_bytes,
            tx_bytes: host.rx_bytes,
            rx_errors: host.tx_errors,
            tx_errors: host.rx_errors,
            rx_dropped: host.tx_dropped,
            tx_dropped: host.rx_dropped,
        })
    }

    /// The index of the container's end, if we could choose it.
    fn make_pair(&self, plan: &EndpointPlan<'_>, host_name: &str) -> Result<Option<u32>> {
        let step = || Error::kernel(format!("attach to {}", plan.bridge));
        let mut links = self.links();
        let master = links.index_of(&plan.bridge).map_err(step())?;
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        let peer_index = match self.peer_index_refused.load(Ordering::Relaxed) {
            false => pleasant_index(&plan.ifname).unwrap_or(index),
            true => index,
        };
        let mtu = plan.mtu.unwrap_or(DEFAULT_MTU);
        let veth = Veth {
            name: host_name,
            index: Some(index),
            group: self.group,
            master,
            peer_name: &plan.ifname,
            peer_index: Some(peer_index),
            peer_mac: plan.mac.0,
            netns: plan.netns,
            mtu,
        };
        let options = PortOptions { hairpin: true, isolated: plan.isolated };
        let mut request = Messages::new();
        request.add_veth(&veth);
        request.set_port(host_name, index, options);
        match links.execute(&mut request) {
            Ok(()) => return Ok(Some(peer_index)),
            Err(error) if !is_about_index(error.errno) => return Err(step()(error)),
            Err(_) => {}
        }
        self.peer_index_refused.store(true, Ordering::Relaxed);
        let veth = Veth { index: None, peer_index: None, ..veth };
        let mut request = Messages::new();
        request.add_veth(&veth);
        links.execute(&mut request).map_err(step())?;
        let mut request = Messages::new();
        request.set_port(host_name, links.index_of(host_name).map_err(step())?, options);
        links.execute(&mut request).map_err(step())?;
        Ok(None)
    }
}

/// Brings up the loopback of a network namespace that gets no other interface.
///
/// # Errors
/// The kernel's refusal.
pub fn raise_loopback(netns: BorrowedFd<'_>) -> Result<()> {
    let step = || Error::kernel("set up lo in the container");
    let mut socket = NetlinkSocket::open_in(netns).map_err(step())?;
    let mut batch = Messages::new();
    batch.set_up("lo", LOOPBACK_INDEX);
    socket.execute(&mut batch).map_err(step())
}

/// The name of the host's end of an endpoint.
pub(crate) fn host_name(id: &str) -> String {
    format!("veth{}", id.chars().take(ID_CHARACTERS).collect::<String>())
}

fn is_about_index(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::EXIST | Errno::INVAL | Errno::NODEV)
}

/// `eth0` is the second link of a namespace, as people know it.
fn pleasant_index(ifname: &str) -> Option<u32> {
    let number: u32 = ifname.strip_prefix("eth")?.parse().ok()?;
    Some(number.min(1000) + LOOPBACK_INDEX + 1)
}

fn configure_inside(plan: &EndpointPlan<'_>, index: Option<u32>) -> Result<()> {
    let step = || Error::kernel(format!("set up {} in the container", plan.ifname));
    let opened = within(plan.netns, || {
        sysctl::without_ipv6(&plan.ifname)?;
        NetlinkSocket::open().map_err(step())
    });
    let mut socket = opened.map_err(step())??;
    let index = match index {
        Some(index) => index,
        None => socket.index_of(&plan.ifname).map_err(step())?,
    };
    socket.execute(&mut inside(plan, index)).map_err(step())
}

fn inside(plan: &EndpointPlan<'_>, link: u32) -> Messages {
    let mut batch = Messages::new();
    batch.set_up("lo", LOOPBACK_INDEX);
    batch.set_up(&plan.ifname, link);
    let address = Address { link, address: plan.ipv4, prefix: plan.prefix };
    batch.add_address(&plan.ifname, &address);
    if let Some(gateway) = plan.gateway {
        let route =
            Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, link: Some(link), table: 254 };
        batch.add_route(&plan.ifname, &route, RouteTarget::Gateway(gateway));
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_fit_an_interface() {
        assert_eq!(host_name("0123456789abcdef"), "veth0123456789a");
        assert_eq!(host_name("ab").len(), 6);
        assert_eq!(pleasant_index("eth1"), Some(3));
        assert_eq!(pleasant_index("wlan0"), None);
    }
}
