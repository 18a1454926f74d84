//! Networks as policy: which there are, who has which address, what is published.
//!
//! The kernel side is `capsa_net`; the networks themselves are rows of the store. An
//! address or a port is taken here before the kernel hears of it, and given back
//! here, so that recovery needs only the containers' records.

mod attachment;
mod dns;
pub(crate) mod files;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use capsa_net::{BridgeSpec, Net, NetConfig, Wanted};
use capsa_store::{Durability, NetworkRow, Store};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub(crate) use attachment::Attachment;
use names::Names;

use crate::container::record::Record;
use crate::container::registry::Registry;
use crate::instance::Instance;
use crate::options::{EngineConfig, NetworkRequest};
use crate::{Class, Error, Result, clock, id};

/// The name of the default network.
pub(crate) const DEFAULT: &str = "bridge";

/// What is kept of a network beside id and name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkBody {
    /// Addresses.
    pub subnet: Ipv4Net,
    /// The bridge's own address.
    pub gateway: Ipv4Addr,
    /// Its device.
    pub bridge: String,
    /// No way out.
    #[serde(default)]
    pub internal: bool,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A bridge network and who is on it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// 64 hex digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// Creation.
    pub created_ns: i64,
    /// The rest.
    pub body: NetworkBody,
    /// Container by address.
    taken: HashMap<Ipv4Addr, String>,
}

/// The policy over `capsa_net`.
#[derive(Debug)]
pub(crate) struct NetworkSide {
    net: Net,
    store: Store,
    prefix: String,
    names: Arc<Names>,
    dns: Vec<std::net::IpAddr>,
    networks: Mutex<BTreeMap<String, Network>>,
}

impl NetworkSide {
    /// Sets up the firewall table and the bridges of every stored network.
    pub(crate) fn open(config: &EngineConfig, instance: &Instance, store: &Store) -> Result<Self> {
        let net = Net::open(NetConfig { table: instance.table() }).map_err(net_error)?;
        let side = Self {
            net,
            store: store.clone(),
            prefix: instance.bridge(),
            names: Arc::default(),
            dns: config.dns.clone(),
            networks: Mutex::default(),
        };
        for row in store.networks()? {
            match parse_row(row) {
                Some(network) => drop(side.lock().insert(network.id.clone(), network)),
                None => tracing::error!("unreadable network record, ignoring"),
            }
        }
        side.settle_default(config, instance)?;
        let networks: Vec<Network> = side.lock().values().cloned().collect();
        for network in &networks {
            side.ensure_bridge(network)?;
        }
        Ok(side)
    }

    /// Makes the default network, or makes it anew when `--bip` says another address.
    fn settle_default(&self, config: &EngineConfig, instance: &Instance) -> Result<()> {
        let wanted = config.bip.as_deref().map(parse_bip).transpose()?;
        let present = self.find(DEFAULT).ok();
        if let Some(present) = &present {
            let body = &present.body;
            if wanted.is_none_or(|bip| bip == (body.subnet, body.gateway)) {
                return Ok(());
            }
            self.net.remove_bridge(&body.bridge).map_err(net_error)?;
            self.store.remove_network(&present.id, Durability::Durable)?;
            self.lock().remove(&present.id);
        }
        let (subnet, gateway) = match wanted {
            Some(bip) => bip,
            None => self.choose_subnet()?,
        };
        let body = NetworkBody {
            subnet,
            gateway,
            bridge: instance.bridge(),
            internal: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        self.insert(DEFAULT, body).map(drop)
    }

    fn choose_subnet(&self) -> Result<(Ipv4Net, Ipv4Addr)> {
        let taken: Vec<Ipv4Net> = self.lock().values().map(|n| n.body.subnet).collect();
        let subnet = self.net.choose_subnet(&taken).map_err(net_error)?.ok_or_else(|| {
            Error::new(Class::Exhausted, "all predefined address pools have been fully subnetted")
                .with_hint("choose one with --subnet, or remove networks that nobody uses")
        })?;
        let gateway = subnet.hosts().next().unwrap_or(subnet.network());
        Ok((subnet, gateway))
    }

    /// Makes a bridge network; its id.
    pub(crate) fn create(&self, request: NetworkRequest) -> Result<String> {
        if !matches!(request.driver.as_str(), "" | "bridge") {
            return Err(Error::unavailable(format!(
                "network driver {:?} is not built yet; bridge is",
                request.driver
            )));
        }
        let name = request.name;
        if matches!(name.as_str(), "" | "default" | "host" | "none") {
            return Err(Error::new(
                Class::Denied,
                format!("operation is not permitted on predefined {name} network"),
            ));
        }
        if self.lock().values().any(|network| network.name == name) {
            return Err(Error::conflict(format!("network with name {name} already exists")));
        }
        let (subnet, mut gateway) = match &request.subnet {
            Some(text) => {
                let subnet: Ipv4Net = text.parse().map_err(|_| {
                    Error::invalid(format!("invalid subnet {text}: want an IPv4 CIDR"))
                })?;
                (subnet.trunc(), subnet.trunc().hosts().next().unwrap_or(subnet.network()))
            }
            None => self.choose_subnet()?,
        };
        if let Some(text) = &request.gateway {
            gateway =
                text.parse().map_err(|_| Error::invalid(format!("invalid gateway {text}")))?;
        }
        if self
            .lock()
            .values()
            .any(|n| n.body.subnet.contains(&subnet) || subnet.contains(&n.body.subnet))
        {
            return Err(Error::new(
                Class::Denied,
                format!(
                    "invalid pool request: Pool overlaps with other one on this address space: {subnet}"
                ),
            ));
        }
        let body = NetworkBody {
            subnet,
            gateway,
            bridge: String::new(),
            internal: request.internal,
            labels: request.labels,
            options: request.options,
        };
        self.insert(&name, body)
    }

    /// Stores a network and makes its bridge.
    fn insert(&self, name: &str, mut body: NetworkBody) -> Result<String> {
        let id = id::random_id()?;
        if body.bridge.is_empty() {
            body.bridge = format!("{}-{}", self.prefix, &id[..15 - self.prefix.len() - 1 - 1]);
        }
        let created_ns = clock::now_ns();
        let text = serde_json::to_string(&body)
            .map_err(|error| Error::kernel(format!("network record: {error}")))?;
        let row = NetworkRow { id: id.clone(), name: name.to_owned(), created_ns, body: text };
        let network = Network {
            id: id.clone(),
            name: name.to_owned(),
            created_ns,
            body,
            taken: HashMap::new(),
        };
        self.store.insert_network(&row, Durability::Durable)?;
        if let Err(error) = self.ensure_bridge(&network) {
            self.store.remove_network(&id, Durability::Durable)?;
            return Err(error);
        }
        self.lock().insert(id.clone(), network);
        Ok(id)
    }

    /// Removes a network that nobody is on.
    pub(crate) fn remove(&self, key: &str) -> Result<Network> {
        let network = self.find(key)?;
        if network.name == DEFAULT {
            return Err(Error::new(
                Class::Denied,
                format!("{DEFAULT} is a pre-defined network and cannot be removed"),
            ));
        }
        if !network.taken.is_empty() {
            return Err(Error::new(
                Class::Denied,
                format!(
                    "error while removing network: network {} has active endpoints",
                    network.name
                ),
            )
            .with_hint("stop or disconnect its containers first"));
        }
        self.store.remove_network(&network.id, Durability::Durable)?;
        self.lock().remove(&network.id);
        self.net.remove_bridge(&network.body.bridge).map_err(net_error)?;
        Ok(network)
    }

    /// By name, id, or unique id prefix.
    pub(crate) fn find(&self, key: &str) -> Result<Network> {
        let networks = self.lock();
        let exact = networks.values().find(|n| n.name == key || n.id == key);
        let mut prefixed = networks.values().filter(|n| !key.is_empty() && n.id.starts_with(key));
        let found = exact.or_else(|| match (prefixed.next(), prefixed.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        });
        found.cloned().ok_or_else(|| Error::not_found(format!("network {key} not found")))
    }

    /// Every bridge network.
    pub(crate) fn all(&self) -> Vec<Network> {
        self.lock().values().cloned().collect()
    }

    /// Brings up the loopback of a container that has nothing else.
    pub(crate) fn raise_loopback(&self, pid: u32) -> Result<()> {
        let netns = attachment::netns(pid)?;
        capsa_net::raise_loopback(netns.as_fd()).map_err(net_error)
    }

    /// Takes addresses and ports for a container that starts; `None` when it has no
    /// network of its own.
    pub(crate) fn prepare(&self, record: &Record) -> Result<Option<Attachment>> {
        attachment::prepare(self, record)
    }

    /// Takes back what a running container of an earlier daemon has.
    pub(crate) fn adopt(&self, record: &Record, pid: u32) -> Option<Attachment> {
        attachment::adopt(self, record, pid)
    }

    /// Removes what no running container has and makes again what is missing.
    pub(crate) fn reconcile(&self, registry: &Registry) {
        let running: Vec<_> = registry
            .all()
            .into_iter()
            .map(|handle| handle.record())
            .filter(|record| record.live.pid != 0)
            .collect();
        let ports: Vec<_> = running
            .iter()
            .flat_map(|record| {
                attachment::port_maps(&record.live.ports, &record.live.endpoints, &record.id)
            })
            .collect();
        let endpoints: Vec<&str> = running
            .iter()
            .flat_map(|record| record.live.endpoints.iter().map(attachment::link_id))
            .collect();
        let bridges: Vec<BridgeSpec> = self.lock().values().map(bridge_spec).collect();
        let wanted = Wanted { bridges: &bridges, endpoints: &endpoints, ports: &ports };
        match self.net.reconcile(&wanted) {
            Ok(repaired) => tracing::debug!(?repaired, "network reconciled"),
            Err(error) => tracing::error!(%error, "network not repaired"),
        }
    }

    /// Removes everything of ours in the kernel; stored networks are made again at the
    /// next start.
    pub(crate) fn teardown(&self) {
        if let Err(error) = self.net.teardown() {
            tracing::warn!(%error, "network left behind");
        }
    }

    fn ensure_bridge(&self, network: &Network) -> Result<()> {
        self.net.ensure_bridge(&bridge_spec(network)).map_err(net_error)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Network>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bridge_spec(network: &Network) -> BridgeSpec {
    let body = &network.body;
    BridgeSpec {
        name: body.bridge.clone(),
        subnet: body.subnet,
        gateway: body.gateway,
        mtu: None,
        internal: body.internal,
        masquerade: !body.internal,
        icc: true,
    }
}

fn parse_row(row: NetworkRow) -> Option<Network> {
    let body = serde_json::from_str(&row.body).ok()?;
    let NetworkRow { id, name, created_ns, .. } = row;
    Some(Network { id, name, created_ns, body, taken: HashMap::new() })
}

/// `172.17.0.1/16`: the bridge's address and, by the prefix, its subnet.
fn parse_bip(text: &str) -> Result<(Ipv4Net, Ipv4Addr)> {
    let net: Ipv4Net = text.parse().map_err(|_| {
        Error::invalid(format!(
            "invalid --bip {text}: want an address and prefix such as 172.20.0.1/16"
        ))
    })?;
    Ok((net.trunc(), net.addr()))
}

/// The engine's error for the network crate's.
pub(crate) fn net_error(error: capsa_net::Error) -> Error {
    use capsa_net::Error as E;
    let class = match &error {
        E::PortTaken { .. } => Class::Conflict,
        E::NoSuchAddress { .. } | E::InterfaceName { .. } => Class::InvalidInput,
        E::NotABridge { .. } => Class::Conflict,
        E::Kernel { .. } | E::Sysctl { .. } | E::Socket { .. } => Class::Kernel,
    };
    Error::new(class, error.to_string())
}
