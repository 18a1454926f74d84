//! Published ports: elements of the table's two maps.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use capsa_sys::netlink::NetlinkSocket;
use capsa_sys::nftables::{Batch, Element};

use crate::rules::{self, FAMILY, PORTS, PORTS_AT, Ruleset};
use crate::{Error, Net, PortMap, Protocol, Result, held_by};

impl Net {
    /// Lets ports of the host lead to containers: all of them or none. Reserve
    /// each first ([`Net::reserve`]): a refusal here is dear, and a host process
    /// that has the port would silently lose its clients.
    ///
    /// # Errors
    /// [`Error::PortTaken`] if one is published already.
    pub fn publish(&self, ports: &[PortMap]) -> Result<()> {
        let (everywhere, somewhere) = rules::port_elements(ports);
        let mut batch = Batch::new(FAMILY, &self.table);
        batch.add_new_elements(PORTS, &everywhere);
        batch.add_new_elements(PORTS_AT, &somewhere);
        let done = self.rules().commit(batch);
        done.map_err(|error| match error.errno {
            Errno::EXIST => self.taken(ports),
            _ => Error::kernel("publish ports")(error),
        })?;
        self.forget_datagrams(ports);
        Ok(())
    }

    /// Takes published ports away. Those that aren't there are passed over.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unpublish(&self, ports: &[PortMap]) -> Result<()> {
        let (everywhere, somewhere) = rules::port_elements(ports);
        match self.delete_ports(&everywhere, &somewhere) {
            Err(error) if error.errno == Errno::NOENT => self.unpublish_present(ports)?,
            done => done.map_err(Error::kernel("unpublish ports"))?,
        }
        self.forget_datagrams(ports);
        Ok(())
    }

    /// What is published, as the kernel has it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn published(&self) -> Result<Vec<PortMap>> {
        Ok(self.load_rules()?.ports)
    }

    /// What the table says; nothing if it is missing.
    pub(crate) fn load_rules(&self) -> Result<Ruleset> {
        load(&mut self.rules(), &self.table)
    }

    /// Changes what the table says and writes it anew, in one step.
    pub(crate) fn change_rules(&self, change: impl FnOnce(&mut Ruleset)) -> Result<()> {
        let mut nftables = self.rules();
        let mut ruleset = load(&mut nftables, &self.table)?;
        change(&mut ruleset);
        let forwarding_was_off = &self.forwarding_was_off;
        ruleset.forwarding_was_off |= forwarding_was_off.load(Ordering::Relaxed);
        forwarding_was_off.store(ruleset.forwarding_was_off, Ordering::Relaxed);
        let written = nftables.commit(ruleset.replace(&self.table));
        written.map_err(Error::kernel("write packet filter rules"))
    }

    fn delete_ports(&self, everywhere: &[Element], somewhere: &[Element]) -> capsa_sys::Result<()> {
        let keys = |elements: &[Element]| {
            let key =
                |element: &Element| Element { key: element.key.clone(), ..Element::default() };
            elements.iter().map(key).collect::<Vec<_>>()
        };
        let mut batch = Batch::new(FAMILY, &self.table);
        batch.delete_elements(PORTS, &keys(everywhere));
        batch.delete_elements(PORTS_AT, &keys(somewhere));
        self.rules().commit(batch)
    }

    fn unpublish_present(&self, ports: &[PortMap]) -> Result<()> {
        let present = self.published()?;
        let there = |port: &&PortMap| present.iter().any(|found| same_port(found, port));
        let left: Vec<_> = ports.iter().filter(there).cloned().collect();
        let (everywhere, somewhere) = rules::port_elements(&left);
        let deleted = self.delete_ports(&everywhere, &somewhere);
        deleted.map_err(Error::kernel("unpublish ports"))
    }

    fn taken(&self, ports: &[PortMap]) -> Error {
        let present = self.published().unwrap_or_default();
        let clash = |port: &&PortMap| present.iter().any(|found| same_port(found, port));
        let Some(port) = ports.iter().find(clash).or(ports.first()) else {
            return Error::kernel("publish ports")(capsa_sys::Error::new("add", "", Errno::EXIST));
        };
        Error::PortTaken {
            protocol: port.protocol,
            address: port.address(),
            port: port.host_port,
            holder: held_by(port.protocol, port.address(), port.host_port),
        }
    }

    /// A client that goes on sending would else stay where it was led before.
    fn forget_datagrams(&self, ports: &[PortMap]) {
        let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let udp: Vec<_> = udp.map(|port| port.host_port).collect();
        if !udp.is_empty() {
            // Without connection tracking there is nothing to forget.
            let _ = NetlinkSocket::open_netfilter().and_then(|mut socket| socket.forget_udp(&udp));
        }
    }
}

fn same_port(one: &PortMap, other: &PortMap) -> bool {
    let key = |port: &PortMap| (port.protocol, port.address(), port.host_port);
    key(one) == key(other)
}

fn load(nftables: &mut capsa_sys::nftables::Nftables, table: &str) -> Result<Ruleset> {
    let step = || Error::kernel(format!("read table {table}"));
    if !nftables.has_table(FAMILY, table).map_err(step())? {
        return Ok(Ruleset::default());
    }
    let mut elements = |set| match nftables.elements(FAMILY, table, set) {
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        other => other.map(Some).map_err(step()),
    };
    let bridges = elements(rules::BRIDGES)?.unwrap_or_default();
    let ports = elements(PORTS)?.unwrap_or_default();
    let ports_at = elements(PORTS_AT)?.unwrap_or_default();
    let forwarding_was_off = elements(rules::FORWARDING_WAS_OFF)?.is_some();
    Ok(Ruleset { forwarding_was_off, ..Ruleset::read(&bridges, &ports, &ports_at) })
}
