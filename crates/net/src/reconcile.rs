//! Making the world match what is wanted, and leaving nothing behind.
//!
//! The same code serves recovery after a crash, repair after someone flushed
//! the rules, and tidying up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use capsa_sys::netlink::{Link, Messages};
use capsa_sys::nftables::{Batch, Watch as TableWatch};
use rustix::io::Errno;

use crate::endpoint::host_name;
use crate::rules::{BridgeRules, FAMILY, Ruleset};
use crate::{BridgeSpec, Error, Net, PortMap, Result, sysctl};

const FORWARD_HOOK: u32 = 2;

/// Everything that shall be there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// All bridges.
    pub bridges: &'a [BridgeSpec],
    /// The ids of all endpoints.
    pub endpoints: &'a [&'a str],
    /// All published ports.
    pub ports: &'a [PortMap],
}

/// What wasn't as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The table was missing or empty.
    pub table: bool,
    /// Ports that are published again.
    pub ports_added: usize,
    /// Ports of containers that are gone.
    pub ports_removed: usize,
    /// Host's ends and bridges that nobody wants, by name.
    pub links_removed: Vec<String>,
}

/// Tells when someone deleted the table. Readable when something has changed.
#[derive(Debug)]
pub struct Watch {
    watch: TableWatch,
    table: String,
}

impl Net {
    /// Makes bridges, endpoints and ports those that are wanted: writes the
    /// table anew in one step (connections survive), makes missing bridges and
    /// removes links of ours that aren't wanted. Missing endpoints aren't made.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn reconcile(&self, wanted: &Wanted<'_>) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        if wanted.bridges.iter().any(|bridge| !bridge.internal) {
            self.enable_forwarding()?;
        }
        self.change_rules(|rules| {
            note_differences(&mut repaired, rules, wanted);
            rules.bridges = wanted.bridges.iter().map(BridgeRules::from).collect();
            rules.ports = wanted.ports.to_vec();
        })?;
        for bridge in wanted.bridges {
            self.ensure_bridge_link(bridge)?;
        }
        repaired.links_removed = self.remove_unwanted_links(wanted)?;
        Ok(repaired)
    }

    /// Removes everything of this instance: links, table, and forwarding if it
    /// was off before and no other table filters forwarded packets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn teardown(&self) -> Result<()> {
        let forwarding_was_off = self.load_rules()?.forwarding_was_off;
        if !self.own_links()?.is_empty() {
            let mut request = Messages::new();
            request.delete_group(self.group);
            let deleted = self.links().execute(&mut request);
            ignore(deleted, Errno::NODEV).map_err(Error::kernel("delete links"))?;
        }
        let step = || Error::kernel(format!("delete table {}", self.table));
        {
            let mut rules = self.rules();
            let mut batch = Batch::new(FAMILY, &self.table);
            batch.add_table("");
            batch.delete_table();
            rules.commit(batch).map_err(step())?;
            let others = rules.base_chains().map_err(step())?;
            if !forwarding_was_off || others.iter().any(|chain| chain.hook == FORWARD_HOOK) {
                return Ok(());
            }
        }
        sysctl::disable_forwarding()
    }

    /// What is there of this instance, for people: table and links.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut left: Vec<_> = self
            .own_links()?
            .into_iter()
            .map(|link| format!("{} {}", link.kind, link.name))
            .collect();
        let table = self.rules().has_table(FAMILY, &self.table);
        if table.map_err(Error::kernel("look up the table"))? {
            left.push(format!("table ip {}", self.table));
        }
        Ok(left)
    }

    /// Chains of other tables that drop forwarded packets by default, as
    /// `table chain`. Containers reach nothing outside while one does and has
    /// no rule for them.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn forward_blockers(&self) -> Result<Vec<String>> {
        let chains = self.rules().base_chains().map_err(Error::kernel("list chains"))?;
        let blocks = chains.iter().filter(|chain| chain.hook == FORWARD_HOOK && chain.drops);
        Ok(blocks.map(|chain| format!("{} {}", chain.table, chain.name)).collect())
    }

    /// Watches over the table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(&self) -> Result<Watch> {
        let watch = TableWatch::open().map_err(Error::kernel("watch nf_tables"))?;
        Ok(Watch { watch, table: self.table.clone() })
    }

    fn remove_unwanted_links(&self, wanted: &Wanted<'_>) -> Result<Vec<String>> {
        let names: Vec<_> = wanted.endpoints.iter().map(|id| host_name(id)).collect();
        let is_wanted = |link: &Link| match link.kind.as_str() {
            "bridge" => wanted.bridges.iter().any(|bridge| bridge.name == link.name),
            _ => names.contains(&link.name),
        };
        let links = self.own_links()?;
        let mut removed = Vec::new();
        for link in links.into_iter().filter(|link| !is_wanted(link)) {
            let mut request = Messages::new();
            request.delete_link(&link.name);
            // It may have died with its namespace since it was listed.
            let deleted = self.links().execute(&mut request);
            ignore(deleted, Errno::NODEV)
                .map_err(Error::kernel(format!("delete {}", link.name)))?;
            removed.push(link.name);
        }
        Ok(removed)
    }

    fn own_links(&self) -> Result<Vec<Link>> {
        let links = self.links().links().map_err(Error::kernel("list links"))?;
        Ok(links.into_iter().filter(|link| link.group == self.group).collect())
    }
}

impl Watch {
    /// Reads what has changed: whether the table was deleted and not made again.
    /// Then it's time to [`Net::reconcile`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn saw_deletion(&mut self) -> Result<bool> {
        let seen = self.watch.saw_deletion(FAMILY, &self.table);
        seen.map_err(Error::kernel("read nf_tables notifications"))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn note_differences(repaired: &mut Repaired, rules: &Ruleset, wanted: &Wanted<'_>) {
    repaired.table = rules.bridges.is_empty() && !wanted.bridges.is_empty();
    let missing = |port: &&PortMap| !rules.ports.contains(port);
    repaired.ports_added = wanted.ports.iter().filter(missing).count();
    let unwanted = |port: &&PortMap| !wanted.ports.contains(port);
    repaired.ports_removed = rules.ports.iter().filter(unwanted).count();
}

fn ignore(result: capsa_sys::Result<()>, errno: Errno) -> capsa_sys::Result<()> {
    match result {
        Err(error) if error.errno == errno => Ok(()),
        other => other,
    }
}
