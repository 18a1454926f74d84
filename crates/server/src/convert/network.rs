//! Networks: a container's place in them, and networks themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use capsa_api::types::{
    Config, CreateRequest, EndpointSettings, HostConfig, Ipam, IpamConfig, Network,
    NetworkContainer, NetworkCreate,
};
use capsa_engine::options::{ConnectRequest, NetworkRequest};
use capsa_engine::spec::{NetworkMode, NetworkSpec};
use capsa_engine::view::{EndpointView, NetworkView};

use super::ports;
use crate::error::{ApiError, Result};
use crate::time;

/// The name of the default bridge.
pub(crate) const BRIDGE: &str = "bridge";

/// The option that names a network's bridge device.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Further networks to join after the first, by name.
pub(crate) type Joins = Vec<(String, ConnectRequest)>;

/// Reads the network side of a create body.
pub(crate) fn spec(request: &CreateRequest) -> Result<(NetworkSpec, Joins)> {
    let (config, host) = (&request.config, &request.host_config);
    let mode = mode(&host.network_mode)?;
    check_conflicts(&mode, config, host)?;
    let endpoints = &request.networking_config.endpoints_config;
    let mine = |name: &str| match &mode {
        NetworkMode::Default => matches!(name, "default" | BRIDGE),
        NetworkMode::Named(named) => named == name,
        NetworkMode::Host => name == "host",
        NetworkMode::None => name == "none",
        NetworkMode::Container(_) => false,
    };
    let none = EndpointSettings::default();
    let first =
        endpoints.iter().find(|(name, _)| mine(name)).map_or(&none, |(_, endpoint)| endpoint);
    let first_join = connect(first)?;
    if mode == NetworkMode::Default {
        check_default_bridge(&first_join)?;
    }
    let mut joins = Joins::new();
    for (name, endpoint) in endpoints.iter().filter(|(name, _)| !mine(name)) {
        if !matches!(mode, NetworkMode::Default | NetworkMode::Named(_)) {
            return bad(format!(
                "conflicting options: cannot attach to network {name:?} with network mode {:?}",
                host.network_mode
            ));
        }
        joins.push((name.clone(), connect(endpoint)?));
    }
    let mac = [&first.mac_address, &config.mac_address].into_iter().find(|mac| !mac.is_empty());
    let spec = NetworkSpec {
        mode,
        exposed: ports::exposed(&config.exposed_ports)?,
        published: ports::published(host)?,
        publish_all: host.publish_all_ports,
        dns: dns(&host.dns)?,
        dns_search: host.dns_search.clone(),
        dns_options: host.dns_options.clone(),
        extra_hosts: extra_hosts(host)?,
        aliases: first_join.aliases,
        ipv4: first_join.ipv4,
        mac: mac.map(|mac| checked_mac(mac)).transpose()?,
    };
    Ok((spec, joins))
}

/// Reads how a container joins one network.
pub(crate) fn connect(endpoint: &EndpointSettings) -> Result<ConnectRequest> {
    let address = endpoint.ipam_config.as_ref().map_or("", |ipam| ipam.ipv4_address.as_str());
    let ipv4 = match address {
        "" => None,
        text => Some(text.parse::<Ipv4Addr>().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid endpoint settings:\ninvalid IPv4 address: {text}"
            ))
        })?),
    };
    Ok(ConnectRequest { ipv4, aliases: endpoint.aliases.clone().unwrap_or_default() })
}

/// Reads the body of a network's creation.
pub(crate) fn create(body: NetworkCreate) -> Result<NetworkRequest> {
    if body.name.is_empty() {
        return bad("invalid network name: name is empty");
    }
    if body.enable_ipv4 == Some(false) {
        return bad("networks without IPv4 are not supported");
    }
    if body.enable_ipv6 == Some(true) {
        return bad("IPv6 networks are not supported yet");
    }
    if body.config_only || body.config_from.is_some_and(|from| !from.network.is_empty()) {
        return bad("configuration-only networks are not supported");
    }
    let ipam = body.ipam.unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return bad(format!("could not resolve driver {} in registry", ipam.driver));
    }
    let mut pools = ipam.config.unwrap_or_default().into_iter();
    let pool = pools.next().unwrap_or_default();
    if pools.next().is_some() {
        return bad("bridge driver doesn't support multiple subnets");
    }
    let optional = |text: String| (!text.is_empty()).then_some(text);
    Ok(NetworkRequest {
        name: body.name,
        driver: body.driver,
        subnet: optional(pool.subnet),
        gateway: optional(pool.gateway),
        internal: body.internal,
        options: body.options,
        labels: body.labels,
    })
}

/// A network as shown; with its containers for inspect, without for lists.
pub(crate) fn show(view: &NetworkView, with_containers: bool) -> Network {
    let pool = view.subnet.as_ref().map(|subnet| IpamConfig {
        subnet: subnet.clone(),
        gateway: view.gateway.map(|g| g.to_string()).unwrap_or_default(),
        ..IpamConfig::default()
    });
    let containers = if with_containers {
        view.containers.iter().map(|(id, name, end)| (id.clone(), container(name, end))).collect()
    } else {
        BTreeMap::new()
    };
    let mut options = view.options.clone();
    if let Some(bridge) = view.bridge.as_ref().filter(|_| view.name == BRIDGE) {
        options.entry(BRIDGE_NAME.to_owned()).or_insert_with(|| bridge.clone());
    }
    Network {
        name: view.name.clone(),
        id: view.id.clone(),
        created: time::rfc3339(view.created_ns),
        scope: "local".to_owned(),
        driver: view.driver.clone(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: Some(pool.into_iter().collect()),
        },
        internal: view.internal,
        containers,
        options,
        labels: view.labels.clone(),
        ..Network::default()
    }
}

/// An endpoint as its container's inspect shows it; `name` and `id` are the container's.
pub(crate) fn endpoint(
    view: &EndpointView,
    asked: Option<&EndpointSettings>,
    name: &str,
    id: &str,
) -> EndpointSettings {
    let address = |ip: Option<Ipv4Addr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let mut dns_names = vec![name.to_owned()];
    let short = id.get(..12).unwrap_or(id).to_owned();
    for other in view.aliases.iter().chain([&short]) {
        if !dns_names.contains(other) {
            dns_names.push(other.clone());
        }
    }
    let on_bridge = view.network == BRIDGE;
    EndpointSettings {
        ipam_config: asked.and_then(|a| a.ipam_config.clone()),
        links: asked.and_then(|a| a.links.clone()),
        aliases: (!view.aliases.is_empty()).then(|| view.aliases.clone()),
        mac_address: if view.ipv4.is_some() { view.mac.clone() } else { String::new() },
        driver_opts: asked.and_then(|a| a.driver_opts.clone()),
        gw_priority: asked.map_or(0, |a| a.gw_priority),
        network_id: view.network_id.clone(),
        endpoint_id: if view.ipv4.is_some() { view.id.clone() } else { String::new() },
        gateway: if view.ipv4.is_some() { address(view.gateway) } else { String::new() },
        ip_address: address(view.ipv4),
        ip_prefix_len: if view.ipv4.is_some() { view.prefix } else { 0 },
        dns_names: (!on_bridge).then_some(dns_names),
        ..EndpointSettings::default()
    }
}

fn container(name: &str, endpoint: &EndpointView) -> NetworkContainer {
    NetworkContainer {
        name: name.to_owned(),
        endpoint_id: endpoint.id.clone(),
        mac_address: endpoint.mac.clone(),
        ipv4_address: endpoint
            .ipv4
            .map(|ip| format!("{ip}/{}", endpoint.prefix))
            .unwrap_or_default(),
        ipv6_address: String::new(),
    }
}

fn mode(text: &str) -> Result<NetworkMode> {
    Ok(match text {
        "" | "default" | BRIDGE => NetworkMode::Default,
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        other => match other.strip_prefix("container:") {
            Some("") => return bad("invalid container format container:<name|id>"),
            Some(container) => NetworkMode::Container(container.to_owned()),
            None => NetworkMode::Named(other.to_owned()),
        },
    })
}

/// Docker's rules about what makes no sense together.
fn check_conflicts(mode: &NetworkMode, config: &Config, host: &HostConfig) -> Result<()> {
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return bad("conflicting options: hostname and the UTS mode");
    }
    let links = host.links.as_ref().is_some_and(|links| !links.is_empty());
    match mode {
        NetworkMode::Host if links => bad(
            "conflicting options: host type networking can't be used with links. This would result \
             in undefined behavior",
        ),
        NetworkMode::Container(_) => {
            let hosts = host.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty());
            let conflicts = [
                (!config.hostname.is_empty(), "hostname and the network mode"),
                (
                    links,
                    "container type network can't be used with links. This would result in \
                     undefined behavior",
                ),
                (!host.dns.is_empty(), "dns and the network mode"),
                (hosts, "custom host-to-IP mapping and the network mode"),
                (!config.mac_address.is_empty(), "mac-address and the network mode"),
                (
                    !host.port_bindings.is_empty() || host.publish_all_ports,
                    "port publishing and the container type network mode",
                ),
                (
                    !config.exposed_ports.is_empty(),
                    "port exposing and the container type network mode",
                ),
            ];
            match conflicts.iter().find(|(conflict, _)| *conflict) {
                Some((_, text)) => bad(format!("conflicting options: {text}")),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_default_bridge(join: &ConnectRequest) -> Result<()> {
    let problem = if join.ipv4.is_some() {
        "user specified IP address is supported on user defined networks only"
    } else if !join.aliases.is_empty() {
        "network-scoped aliases are only supported for user-defined networks"
    } else {
        return Ok(());
    };
    bad(format!("invalid config for network bridge: invalid endpoint settings:\n{problem}"))
}

fn dns(servers: &[String]) -> Result<Vec<IpAddr>> {
    servers
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "bad nameserver address: {text} is not an IP address"
                ))
            })
        })
        .collect()
}

/// `name:ip` lines; `name=ip` is taken too.
fn extra_hosts(host: &HostConfig) -> Result<Vec<String>> {
    host.extra_hosts
        .iter()
        .flatten()
        .map(|text| {
            let (name, ip) =
                text.split_once([':', '=']).filter(|(name, _)| !name.is_empty()).ok_or_else(
                    || ApiError::bad_request(format!("bad format for add-host: {text:?}")),
                )?;
            let bare = ip.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(ip);
            if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
                return bad(format!("invalid IP address in add-host: {ip:?}"));
            }
            Ok(format!("{name}:{bare}"))
        })
        .collect()
}

fn checked_mac(text: &str) -> Result<String> {
    let octets: Vec<&str> = text.split([':', '-']).collect();
    let valid = octets.len() == 6
        && octets.iter().all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()));
    if valid {
        Ok(octets.join(":").to_ascii_lowercase())
    } else {
        bad(format!("invalid MAC address: {text}"))
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(ApiError::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> CreateRequest {
        CreateRequest::from_slice(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_first_endpoint_belongs_to_the_mode_and_the_others_are_joined() {
        let body = r#"{"HostConfig":{"NetworkMode":"a"},"NetworkingConfig":{"EndpointsConfig":{
            "a":{"IPAMConfig":{"IPv4Address":"10.0.0.2"},"Aliases":["x"]},"b":{"Aliases":["y"]},"c":null}}}"#;
        let (spec, joins) = super::spec(&request(body)).unwrap();
        assert_eq!(spec.mode, NetworkMode::Named("a".into()));
        assert_eq!(
            (spec.ipv4, spec.aliases),
            (Some(Ipv4Addr::new(10, 0, 0, 2)), vec!["x".to_owned()])
        );
        let names: Vec<&str> = joins.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(joins[0].1.aliases, ["y"]);
    }

    #[test]
    fn conflicts_are_named_as_docker_names_them() {
        for (json, text) in [
            (
                r#"{"Hostname":"h","HostConfig":{"NetworkMode":"container:x"}}"#,
                "hostname and the network mode",
            ),
            (
                r#"{"ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"container:x"}}"#,
                "port exposing",
            ),
            (r#"{"Hostname":"h","HostConfig":{"UTSMode":"host"}}"#, "hostname and the UTS mode"),
            (r#"{"HostConfig":{"NetworkMode":"container:"}}"#, "invalid container format"),
            (r#"{"HostConfig":{"ExtraHosts":["a"]}}"#, "bad format for add-host: \"a\""),
            (r#"{"HostConfig":{"ExtraHosts":["a:b"]}}"#, "invalid IP address in add-host: \"b\""),
            (r#"{"HostConfig":{"Dns":["x"]}}"#, "bad nameserver address"),
            (r#"{"MacAddress":"zz"}"#, "invalid MAC address: zz"),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["x"]}}}}"#,
                "only supported for user-defined",
            ),
        ] {
            let message = super::spec(&request(json)).unwrap_err().message;
            assert!(message.contains(text), "{message}");
        }
    }

    #[test]
    fn the_default_bridge_tells_its_device() {
        let view = NetworkView {
            name: BRIDGE.to_owned(),
            id: "i".to_owned(),
            driver: "bridge".to_owned(),
            subnet: Some("172.17.0.0/16".to_owned()),
            gateway: Some([172, 17, 0, 1].into()),
            bridge: Some("capsa0".to_owned()),
            internal: false,
            created_ns: 0,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            containers: Vec::new(),
        };
        let shown = serde_json::to_value(show(&view, true)).unwrap();
        assert_eq!(shown["Options"][BRIDGE_NAME], "capsa0");
        assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "172.17.0.1");
        assert_eq!(shown["Containers"], serde_json::json!({}));
    }

    #[test]
    fn one_subnet_makes_a_network() {
        let body = r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.1"}]},"Internal":true}"#;
        let body: NetworkCreate = capsa_api::json::from_slice(body.as_bytes()).unwrap();
        let request = create(body).unwrap();
        assert_eq!(request.subnet.as_deref(), Some("10.9.0.0/24"));
        assert!(request.internal && request.driver.is_empty());
        assert!(create(NetworkCreate::default()).is_err());
    }
}
