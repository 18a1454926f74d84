//! nf_tables: one table changed by atomic batches, and read back
//! (`linux/netfilter/nf_tables.h`).
//!
//! A batch is all or nothing; a refusal names the operation. A refused batch
//! costs 4 to 16 ms in the kernel's abort path, so nothing here probes by
//! failing. A batch touches only the table it was made for.
//!
//! Not here: what the rules say (`capsa-net`).

mod batch;
mod element;
mod expression;

use std::cell::RefCell;

use rustix::io::Errno;

use crate::netlink::NetlinkSocket;
use crate::netlink::message::{DUMP, Messages, Reply};
use crate::{Error, Result};

pub use batch::{BaseChain, Batch, ChainKind, Field, Hook, Set};
pub use element::Element;
pub use expression::{Base, Comparison, CtKey, Expression, MetaKey, Register, Verdict};

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;

const HEAD: usize = 4;
const GROUP_NFTABLES: u32 = 1 << 6;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
}

/// A connection to nf_tables of one network namespace.
#[derive(Debug)]
pub struct Nftables {
    socket: NetlinkSocket,
}

/// A base chain of any table, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedChain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook's number (`NF_INET_…`).
    pub hook: u32,
    /// Its place among the chains of that hook.
    pub priority: i32,
    /// Whether packets that no rule decides are dropped.
    pub drops: bool,
}

/// Notifications of changes to nf_tables.
#[derive(Debug)]
pub struct Watch {
    socket: NetlinkSocket,
}

impl Nftables {
    /// Connects to the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netfilter.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: NetlinkSocket::open_netfilter()? })
    }

    /// Does everything in `batch`, or nothing.
    ///
    /// # Errors
    /// The first refusal; its object names table, chain or set.
    pub fn commit(&mut self, batch: Batch) -> Result<()> {
        let Some((mut messages, last)) = batch.finish() else {
            return Ok(());
        };
        self.socket.exchange(&mut messages, last, Some(last), &mut |_| {})
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn has_table(&mut self, family: Family, table: &str) -> Result<bool> {
        let mut request = Messages::new();
        request.message((GETTABLE, 0), ("look up table", table), &head(family as u8), |m| {
            m.string(TABLE_NAME, table);
        });
        match self.socket.exchange(&mut request, 0, Some(0), &mut |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.errno == Errno::NOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The elements of a set or map; `ENOENT` if it or its table is missing.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>> {
        let mut request = Messages::new();
        let object = format!("{table} {set}");
        request.message((GETSETELEM, DUMP), ("list set", &object), &head(family as u8), |m| {
            m.string(element::LIST_TABLE, table);
            m.string(element::LIST_SET, set);
        });
        self.list(&mut request, &|reply| element::decode(reply))
    }

    /// The base chains of all tables of IPv4 and of both families.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn base_chains(&mut self) -> Result<Vec<ListedChain>> {
        let mut chains = Vec::new();
        for family in [Family::Ip, Family::Inet] {
            let mut request = Messages::new();
            request.message((GETCHAIN, DUMP), ("list", "chains"), &head(family as u8), |_| {});
            chains.extend(self.list(&mut request, &|reply| chain_of(reply).into_iter().collect())?);
        }
        Ok(chains)
    }

    /// How many rules a table has.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn count_rules(&mut self, family: Family, table: &str) -> Result<usize> {
        let mut request = Messages::new();
        request.message((GETRULE, DUMP), ("list rules", table), &head(family as u8), |m| {
            m.string(RULE_TABLE, table);
        });
        let rules = self.list(&mut request, &|reply| {
            let owner = reply.attributes(HEAD).find(RULE_TABLE).and_then(|a| a.text());
            if reply.kind == NEWRULE && owner == Some(table) { vec![()] } else { Vec::new() }
        })?;
        Ok(rules.len())
    }

    fn list<T>(
        &mut self,
        request: &mut Messages,
        decode: &dyn Fn(&Reply<'_>) -> Vec<T>,
    ) -> Result<Vec<T>> {
        let entries = RefCell::new(Vec::new());
        self.socket.dump(request, &mut || entries.borrow_mut().clear(), &mut |reply| {
            entries.borrow_mut().extend(decode(&reply))
        })?;
        Ok(entries.into_inner())
    }
}

impl Watch {
    /// Subscribes to changes in the calling thread's network namespace. The
    /// descriptor is readable when something has changed.
    ///
    /// # Errors
    /// When the kernel has no netfilter.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: NetlinkSocket::watch_netfilter(GROUP_NFTABLES)? })
    }

    /// Reads all notifications that are there: whether `table` was deleted and
    /// not made again, or notifications were lost so that it may have been.
    ///
    /// # Errors
    /// As recv(2).
    pub fn saw_deletion(&mut self, family: Family, table: &str) -> Result<bool> {
        let mut deleted = false;
        loop {
            let more = self.socket.notifications(&mut |reply| {
                let name = reply.attributes(HEAD).find(TABLE_NAME).and_then(|a| a.text());
                let of_family = reply.body.first() == Some(&(family as u8));
                match reply.kind {
                    DELTABLE if of_family && name == Some(table) => deleted = true,
                    NEWTABLE if of_family && name == Some(table) => deleted = false,
                    _ => {}
                }
            });
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(deleted),
                Err(Error { errno: Errno::NOBUFS, .. }) => deleted = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl std::os::fd::AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `struct nfgenmsg`.
fn head(family: u8) -> [u8; HEAD] {
    [family, 0, 0, 0]
}

fn chain_of(reply: &Reply<'_>) -> Option<ListedChain> {
    if reply.kind != NEWCHAIN {
        return None;
    }
    let find = |kind| reply.attributes(HEAD).find(kind);
    let hook = find(CHAIN_HOOK)?;
    Some(ListedChain {
        table: find(CHAIN_TABLE)?.text()?.to_owned(),
        name: find(CHAIN_NAME)?.text()?.to_owned(),
        hook: hook.nested().find(HOOK_NUMBER)?.be32()?,
        priority: hook.nested().find(HOOK_PRIORITY)?.be32()? as i32,
        drops: find(CHAIN_POLICY).and_then(|a| a.be32()) == Some(0),
    })
}
