//! Networks: from data to links, addresses, packet filter rules and names.
//!
//! One [`Net`] is one instance's share of the host's network: bridges, the
//! host's ends of containers, and one nf_tables table. It's the only place that
//! knows nf_tables. All calls block, most for less than a millisecond, and may
//! come from any thread that is in the network namespace where the `Net` was
//! opened.
//!
//! Invariants: the kernel is the only memory: what is published is what is in
//! the table. Every object carries the instance's mark (table name, device
//! group), so that [`Net::reconcile`] and [`Net::teardown`] find what a crash
//! left behind. No other table, chain or link is ever touched.
//!
//! Limits, on purpose for now:
//! * Containers have IPv4 only; IPv6 is off on bridges and in containers, and a
//!   port published on `::` answers on IPv4 alone.
//! * Rules of others go on to apply: a host firewall whose forward chain drops
//!   by default (ufw, or Docker's own `FORWARD` policy) stops containers'
//!   traffic too. [`Net::forward_blockers`] names such chains.
//! * `net.ipv4.ip_forward` is switched on with the first network that has a way
//!   out; [`Net::teardown`] switches it back only if it was off before and no
//!   other table filters forwarded packets.
//! * A container that reaches another one of its own network through a
//!   published port is seen as the gateway, because the answer would otherwise
//!   take a shortcut past the address rewriting.
//!
//! Not here: when to do any of it (`capsa-engine`), netlink itself (`capsa-sys`).

mod bridge;
pub mod dns;
mod endpoint;
mod error;
pub mod files;
mod holder;
pub mod ipam;
mod plan;
mod publish;
mod reconcile;
mod reserve;
mod rules;
mod sysctl;

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, MutexGuard, PoisonError};

use capsa_sys::netlink::NetlinkSocket;
use capsa_sys::nftables::Nftables;

pub use endpoint::raise_loopback;
pub use error::{Error, Result};
pub use holder::{Holder, held_by};
pub use plan::{BridgeSpec, EndpointPlan, Mac, MacError, NetConfig, PortMap, Protocol};
pub use reconcile::{Repaired, Wanted, Watch};

const GROUP_MARK: u32 = 0x6361_0000;
const INDEX_REGION_BITS: u32 = 20;

/// One instance's share of the host's network. Dropping it changes nothing.
#[derive(Debug)]
pub struct Net {
    table: String,
    /// The device group of all our links.
    group: u32,
    next_index: AtomicU32,
    peer_index_refused: AtomicBool,
    /// Also kept in the table; here in case that is flushed.
    forwarding_was_off: AtomicBool,
    links: Mutex<NetlinkSocket>,
    rules: Mutex<Nftables>,
}

impl Net {
    /// Opens the instance's share and makes or repairs its table; bridges and
    /// ports that are in the table stay.
    ///
    /// # Errors
    /// When the kernel has no nf_tables or refuses (`CAP_NET_ADMIN`).
    pub fn open(config: NetConfig) -> Result<Self> {
        let mark = mark_of(&config.table);
        let net = Self {
            group: GROUP_MARK | mark,
            next_index: AtomicU32::new((mark & 0x3ff | 0x400) << INDEX_REGION_BITS),
            peer_index_refused: AtomicBool::new(false),
            forwarding_was_off: AtomicBool::new(false),
            links: Mutex::new(NetlinkSocket::open().map_err(Error::kernel("open rtnetlink"))?),
            rules: Mutex::new(Nftables::open().map_err(Error::kernel("open nf_tables"))?),
            table: config.table,
        };
        net.start_indexes_behind_used()?;
        net.change_rules(|_| {})?;
        Ok(net)
    }

    fn links(&self) -> MutexGuard<'_, NetlinkSocket> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> MutexGuard<'_, Nftables> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a of the table's name, folded to 16 bits.
fn mark_of(table: &str) -> u32 {
    let hash = table
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash >> 16 ^ hash & 0xffff
}
