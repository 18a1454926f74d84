//! Bridges: making one, taking it away, and choosing its subnet.

use std::sync::atomic::Ordering;

use capsa_sys::netlink::{Address, Bridge, Link, Messages};
use ipnet::Ipv4Net;

use crate::rules::BridgeRules;
use crate::{BridgeSpec, Error, Net, Result, ipam, sysctl};

/// MTU of bridges and endpoints that name none, in bytes.
pub(crate) const DEFAULT_MTU: u32 = 1500;
const NAME_BYTES: usize = 15;

impl Net {
    /// Makes the bridge and its rules, or makes them so; a second call with the
    /// same spec does nothing. A bridge that someone else made is used but
    /// never removed.
    ///
    /// # Errors
    /// [`Error::NotABridge`], [`Error::InterfaceName`], or the kernel's refusal.
    pub fn ensure_bridge(&self, spec: &BridgeSpec) -> Result<()> {
        check_name(&spec.name)?;
        if !spec.internal {
            self.enable_forwarding()?;
        }
        let wanted = BridgeRules::from(spec);
        self.change_rules(|rules| {
            if !rules.bridges.contains(&wanted) {
                rules.bridges.retain(|bridge| bridge.name != wanted.name);
                rules.bridges.push(wanted);
            }
        })?;
        self.ensure_bridge_link(spec)
    }

    /// Removes the bridge, if it's ours, and its rules. Containers still on it
    /// lose their network. Does nothing if it doesn't exist.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_bridge(&self, name: &str) -> Result<()> {
        let step = || format!("remove bridge {name}");
        let listed = self.links().links().map_err(Error::kernel(step()))?;
        if listed.iter().any(|link| link.name == name && link.group == self.group) {
            let mut request = Messages::new();
            request.delete_link(name);
            self.links().execute(&mut request).map_err(Error::kernel(step()))?;
        }
        self.change_rules(|rules| rules.bridges.retain(|bridge| bridge.name != name))
    }

    /// The first subnet of [`ipam::candidates`] that overlaps neither `taken`
    /// nor any route or address of this host (VPNs and other engines' bridges
    /// included); `None` if there is none.
    ///
    /// # Errors
    /// When the kernel doesn't list its routes.
    pub fn choose_subnet(&self, taken: &[Ipv4Net]) -> Result<Option<Ipv4Net>> {
        let mut all = self.used_subnets()?;
        all.extend_from_slice(taken);
        Ok(ipam::choose_subnet(ipam::candidates(), &all))
    }

    /// The subnets that this host has routes to or addresses in, default routes
    /// left out.
    ///
    /// # Errors
    /// When the kernel doesn't list them.
    pub fn used_subnets(&self) -> Result<Vec<Ipv4Net>> {
        let step = || Error::kernel("list this host's routes");
        let routes = self.links().routes().map_err(step())?;
        let addresses = self.links().addresses().map_err(step())?;
        let routes = routes.iter().map(|route| (route.destination, route.prefix));
        let addresses = addresses.iter().map(|address| (address.address, address.prefix));
        let known = routes.chain(addresses).filter(|&(_, prefix)| prefix > 0);
        Ok(known.filter_map(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).collect())
    }

    pub(crate) fn enable_forwarding(&self) -> Result<()> {
        if sysctl::enable_forwarding()? {
            self.forwarding_was_off.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn ensure_bridge_link(&self, spec: &BridgeSpec) -> Result<()> {
        let link = match self.find_link(&spec.name)? {
            Some(link) if link.kind == "bridge" => link,
            Some(link) => {
                return Err(Error::NotABridge { name: link.name, kind: link.kind });
            }
            None => self.make_bridge(spec)?,
        };
        self.configure_bridge(spec, &link)?;
        sysctl::prepare_bridge(&spec.name)
    }

    pub(crate) fn start_indexes_behind_used(&self) -> Result<()> {
        let base = self.next_index.load(Ordering::Relaxed);
        let links = self.links().links().map_err(Error::kernel("list links"))?;
        let region = base..base + (1 << crate::INDEX_REGION_BITS);
        let used = links.iter().map(|link| link.index).filter(|index| region.contains(index));
        self.next_index.store(used.max().map_or(base, |highest| highest + 1), Ordering::Relaxed);
        Ok(())
    }

    fn find_link(&self, name: &str) -> Result<Option<Link>> {
        match self.links().link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(None),
            Err(error) => Err(Error::kernel(format!("look up {name}"))(error)),
        }
    }

    fn make_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        let mut request = Messages::new();
        request.add_bridge(&Bridge {
            name: &spec.name,
            mac: ipam::mac_of(spec.gateway).0,
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
            group: self.group,
            alias: &format!("{}: network {}", self.table, spec.subnet),
        });
        let step = || Error::kernel(format!("make bridge {}", spec.name));
        let mut links = self.links();
        match links.execute(&mut request) {
            // Another thread was quicker.
            Err(error) if error.errno == rustix::io::Errno::EXIST => {}
            done => done.map_err(step())?,
        }
        links.link(&spec.name).map_err(step())
    }

    /// The gateway's address, and no other if the bridge is ours.
    fn configure_bridge(&self, spec: &BridgeSpec, link: &Link) -> Result<()> {
        let wanted =
            Address { link: link.index, address: spec.gateway, prefix: spec.subnet.prefix_len() };
        let step = || Error::kernel(format!("configure bridge {}", spec.name));
        let mut links = self.links();
        let present = links.addresses().map_err(step())?;
        let present: Vec<_> = present.iter().filter(|found| found.link == link.index).collect();
        let mut request = Messages::new();
        for stale in present.iter().filter(|found| ***found != wanted && link.group == self.group) {
            request.delete_address(&spec.name, stale);
        }
        if !present.contains(&&wanted) {
            request.add_address(&spec.name, &wanted);
        }
        let mtu = spec.mtu.unwrap_or(DEFAULT_MTU);
        if link.mtu != mtu && link.group == self.group {
            request.set_mtu(&spec.name, link.index, mtu);
        }
        if !link.up {
            request.set_up(&spec.name, link.index);
        }
        links.execute(&mut request).map_err(step())
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let valid = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let fits = !name.is_empty() && name.len() <= NAME_BYTES && name != "." && name != "..";
    if fits && name.chars().all(valid) {
        return Ok(());
    }
    Err(Error::InterfaceName { name: name.to_owned() })
}
