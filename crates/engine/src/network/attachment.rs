//! One container's place in the network while it runs: address, ports, names.
//!
//! Taken in three steps, each undone by `release`: reserved before the container
//! exists, connected once its network namespace does, and given back when it ends.
//! Its end of the veth goes with the namespace.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use capsa_net::{EndpointPlan, Mac, PortMap, ipam};
use tokio::task::JoinHandle;

use super::{DEFAULT, Network, NetworkSide, dns, net_error};
use crate::container::record::Record;
use crate::spec::{NetworkMode, Port, PublishSpec};
use crate::view::{EndpointView, PortBinding};
use crate::{Class, Error, Result};

/// What a running container has of the network.
#[derive(Debug)]
pub(crate) struct Attachment {
    container: String,
    endpoint: EndpointView,
    network: Network,
    ports: Vec<PortBinding>,
    published: bool,
    /// Sockets that keep the host's processes off the published ports.
    held: Vec<OwnedFd>,
    name_server: Option<JoinHandle<()>>,
}

/// Takes an address and the ports.
pub(super) fn prepare(side: &NetworkSide, record: &Record) -> Result<Option<Attachment>> {
    let key = match &record.spec.network.mode {
        NetworkMode::Default => DEFAULT,
        NetworkMode::Named(key) => key,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => return Ok(None),
    };
    let network = side.find(key)?;
    let address = take_address(side, &network.id, record)?;
    let endpoint = EndpointView {
        network: network.name.clone(),
        network_id: network.id.clone(),
        id: crate::id::random_id()?,
        ipv4: Some(address),
        prefix: network.body.subnet.prefix_len(),
        gateway: (!network.body.internal).then_some(network.body.gateway),
        mac: mac(record, address)?.to_string(),
        aliases: record.spec.network.aliases.clone(),
    };
    let mut attachment = Attachment {
        container: record.id.clone(),
        endpoint,
        network,
        ports: Vec::new(),
        published: false,
        held: Vec::new(),
        name_server: None,
    };
    if let Err(error) = attachment.reserve_ports(side, record) {
        attachment.release(side);
        return Err(error);
    }
    Ok(Some(attachment))
}

/// Takes back what the record of a running container says.
pub(super) fn adopt(side: &NetworkSide, record: &Record, pid: u32) -> Option<Attachment> {
    let endpoint = record.live.endpoints.first()?.clone();
    let network = side.find(&endpoint.network_id).ok()?;
    let address = endpoint.ipv4?;
    if let Some(network) = side.lock().get_mut(&network.id) {
        network.taken.insert(address, record.id.clone());
    }
    let mut attachment = Attachment {
        container: record.id.clone(),
        endpoint,
        network,
        ports: record.live.ports.clone(),
        published: true,
        held: Vec::new(),
        name_server: None,
    };
    for binding in &record.live.ports {
        match side.net.reserve(protocol(binding.port), host_v4(binding.host_ip), binding.host_port)
        {
            Ok((socket, _)) => attachment.held.push(socket),
            Err(error) => tracing::warn!(container = %record.id, %error, "published port not held"),
        }
    }
    let served = netns(pid).and_then(|netns| attachment.serve_names(side, record, &netns));
    if let Err(error) = served {
        tracing::warn!(container = %record.id, %error, "no name server for a running container");
    }
    Some(attachment)
}

/// The firewall's map entries for published ports.
pub(super) fn port_maps(
    ports: &[PortBinding],
    endpoints: &[EndpointView],
    owner: &str,
) -> Vec<PortMap> {
    let Some(address) = endpoints.first().and_then(|endpoint| endpoint.ipv4) else {
        return Vec::new();
    };
    ports
        .iter()
        .map(|binding| PortMap {
            protocol: protocol(binding.port),
            host_ip: host_v4(binding.host_ip),
            host_port: binding.host_port,
            to: SocketAddrV4::new(address, binding.port.number),
            owner: owner.to_owned(),
        })
        .collect()
}

impl Attachment {
    /// Joins the network namespace of `pid` to the network and opens the ports.
    pub(crate) fn connect(&mut self, side: &NetworkSide, record: &Record, pid: u32) -> Result<()> {
        let netns = netns(pid)?;
        let (Some(ipv4), body) = (self.endpoint.ipv4, &self.network.body) else { return Ok(()) };
        let plan = EndpointPlan {
            // Not the container's: the link of its last run may still be going.
            id: link_id(&self.endpoint).to_owned(),
            bridge: body.bridge.clone(),
            netns: netns.as_fd(),
            ifname: "eth0".to_owned(),
            ipv4,
            prefix: self.endpoint.prefix,
            gateway: self.endpoint.gateway,
            mac: mac(record, ipv4)?,
            mtu: None,
            isolated: false,
        };
        side.net.attach(&plan).map_err(net_error)?;
        if !self.ports.is_empty() {
            let maps = self.port_maps();
            side.net.publish(&maps).map_err(net_error)?;
            self.published = true;
        }
        self.serve_names(side, record, &netns)
    }

    /// Gives everything back.
    pub(crate) fn release(mut self, side: &NetworkSide) {
        if let Some(task) = self.name_server.take() {
            task.abort();
        }
        if self.published && !self.ports.is_empty() {
            let maps = self.port_maps();
            if let Err(error) = side.net.unpublish(&maps) {
                tracing::warn!(container = self.container, %error, "published ports left behind");
            }
        }
        side.names.remove(&self.network.id, &self.container);
        if let (Some(network), Some(address)) =
            (side.lock().get_mut(&self.network.id), self.endpoint.ipv4)
        {
            network.taken.remove(&address);
        }
    }

    /// For the record.
    pub(crate) fn endpoints(&self) -> Vec<EndpointView> {
        vec![self.endpoint.clone()]
    }

    /// For the record.
    pub(crate) fn ports(&self) -> Vec<PortBinding> {
        self.ports.clone()
    }

    fn port_maps(&self) -> Vec<PortMap> {
        port_maps(&self.ports, std::slice::from_ref(&self.endpoint), &self.container)
    }

    /// Its address and the gateway, for /etc/hosts.
    pub(crate) fn addresses(&self) -> (Option<Ipv4Addr>, Ipv4Addr) {
        (self.endpoint.ipv4, self.network.body.gateway)
    }

    fn reserve_ports(&mut self, side: &NetworkSide, record: &Record) -> Result<()> {
        for publish in &record.spec.network.published {
            self.reserve(side, publish)?;
        }
        if !record.spec.network.publish_all {
            return Ok(());
        }
        for port in &record.resolved.exposed {
            if !self.ports.iter().any(|binding| binding.port == *port) {
                let any =
                    PublishSpec { port: *port, host_ip: None, host_port: 0, host_port_end: 0 };
                self.reserve(side, &any)?;
            }
        }
        Ok(())
    }

    /// Takes the first free host port of the wanted range.
    fn reserve(&mut self, side: &NetworkSide, publish: &PublishSpec) -> Result<()> {
        let host_ip = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if let IpAddr::V6(address) = host_ip
            && !address.is_unspecified()
        {
            return Err(Error::unavailable(format!(
                "publishing on the IPv6 address {address} is not built yet"
            )));
        }
        let last = publish.host_port_end.max(publish.host_port);
        let mut refused = None;
        for host_port in publish.host_port..=last {
            match side.net.reserve(protocol(publish.port), host_v4(host_ip), host_port) {
                Ok((socket, host_port)) => {
                    self.held.push(socket);
                    self.ports.push(PortBinding { port: publish.port, host_ip, host_port });
                    return Ok(());
                }
                Err(error) => refused = Some(taken(side, error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::invalid("empty port range")))
    }

    fn serve_names(&mut self, side: &NetworkSide, record: &Record, netns: &File) -> Result<()> {
        let Some(address) = self.endpoint.ipv4 else { return Ok(()) };
        let mut names =
            vec![record.name.clone(), record.id[..12].to_owned(), record.resolved.hostname.clone()];
        names.extend(self.endpoint.aliases.iter().cloned());
        side.names.add(&self.network.id, &self.container, &names, address);
        let sockets = capsa_net::dns::bind_in(netns.as_fd()).map_err(net_error)?;
        let upstream = if record.spec.network.dns.is_empty() {
            side.dns.clone()
        } else {
            record.spec.network.dns.clone()
        };
        let networks = vec![self.network.id.clone()];
        let server = dns::Server {
            names: std::sync::Arc::clone(&side.names),
            networks,
            upstream,
            internal: self.network.body.internal,
        };
        self.name_server = Some(dns::serve(sockets, server)?);
        Ok(())
    }
}

/// Docker's text for a taken port, with the container or process that has it.
fn taken(side: &NetworkSide, error: capsa_net::Error) -> Error {
    let capsa_net::Error::PortTaken { protocol, address, port, holder } = &error else {
        return net_error(error);
    };
    let published = side.net.published().unwrap_or_default();
    let other = published.iter().find(|map| map.protocol == *protocol && map.host_port == *port);
    let by = match (other, holder) {
        (Some(map), _) => format!(" by container {}", &map.owner[..map.owner.len().min(12)]),
        (None, Some(holder)) => format!(" by {} (pid {})", holder.command, holder.pid),
        (None, None) => String::new(),
    };
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Error::conflict(format!("Bind for {address}:{port} failed: port is already allocated{by}"))
        .with_hint("publish another host port, or end what holds this one")
}

fn take_address(side: &NetworkSide, network: &str, record: &Record) -> Result<Ipv4Addr> {
    let mut networks = side.lock();
    let network = networks
        .get_mut(network)
        .ok_or_else(|| Error::not_found(format!("network {network} not found")))?;
    let body = &network.body;
    let address = match record.spec.network.ipv4 {
        Some(asked) if !body.subnet.contains(&asked) => {
            return Err(Error::invalid(format!(
                "invalid address {asked}: it is not in the network's subnet {}",
                body.subnet
            )));
        }
        Some(asked) if network.taken.contains_key(&asked) || asked == body.gateway => {
            return Err(Error::conflict(format!("Address already in use: {asked}")));
        }
        Some(asked) => asked,
        None => ipam::next_free(body.subnet, body.gateway, |ip| network.taken.contains_key(&ip))
            .ok_or_else(|| {
                Error::new(
                    Class::Exhausted,
                    format!(
                        "no available IPv4 addresses on network {}: {}",
                        network.name, body.subnet
                    ),
                )
            })?,
    };
    network.taken.insert(address, record.id.clone());
    Ok(address)
}

/// What names an endpoint's link on the host.
pub(super) fn link_id(endpoint: &EndpointView) -> &str {
    endpoint.id.get(..11).unwrap_or(&endpoint.id)
}

fn mac(record: &Record, address: Ipv4Addr) -> Result<Mac> {
    match record.spec.network.mac.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => {
            text.parse().map_err(|error: capsa_net::MacError| Error::invalid(error.to_string()))
        }
        None => Ok(ipam::mac_of(address)),
    }
}

pub(super) fn netns(pid: u32) -> Result<File> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(&path).map_err(|error| Error::kernel(format!("{path}: {error}")))
}

fn protocol(port: Port) -> capsa_net::Protocol {
    match port.protocol {
        crate::spec::Protocol::Tcp => capsa_net::Protocol::Tcp,
        crate::spec::Protocol::Udp => capsa_net::Protocol::Udp,
        crate::spec::Protocol::Sctp => capsa_net::Protocol::Sctp,
    }
}

/// `None` is every address.
fn host_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}
