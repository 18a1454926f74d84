//! Networks: make, list, remove, connect, disconnect.

use std::rc::Rc;

use capsa_api::Payload;
use capsa_api::encoding::{encode, with_query};
use capsa_api::types::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Network,
    NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect,
};
use hyper::Method;

use super::ps::{join_labels, lookup};
use super::{Outcome, each_argument, filters};
use crate::create::map;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::units::short_id;
use crate::output::{line, note};
use crate::session::Session;
use crate::template::Value;

/// `capsa network create`.
pub(crate) static CREATE: Command = Command {
    names: &["network create"],
    usage: "[OPTIONS] NETWORK",
    about: "Make a network",
    flags: &[&[
        Flag::switch("attachable", "Accepted for compatibility: every network is"),
        Flag::map("aux-address", "Address that is taken already, NAME=ADDRESS"),
        Flag::text("config-from", "Network to take the configuration of"),
        Flag::switch("config-only", "Make a configuration, not a network"),
        Flag::text("driver", "Driver (default bridge)").short('d'),
        Flag::list("gateway", "Gateway of the subnet").word("ipSlice"),
        Flag::switch("ingress", "Swarm's routing mesh"),
        Flag::switch("internal", "No way out"),
        Flag::list("ip-range", "Part of the subnet to take addresses from").word("ipNetSlice"),
        Flag::text("ipam-driver", "Driver that gives addresses"),
        Flag::map("ipam-opt", "Option of that driver, KEY=VALUE"),
        Flag::switch("ipv4", "Give IPv4 addresses (default true)"),
        Flag::switch("ipv6", "Give IPv6 addresses"),
        Flag::list("label", "Label, KEY=VALUE"),
        Flag::map("opt", "Option of the driver, KEY=VALUE").short('o'),
        Flag::text("scope", "Scope of the network"),
        Flag::list("subnet", "Subnet, such as 10.1.0.0/24").word("strings"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(create(session, matches)),
};

/// `capsa network ls`.
pub(crate) static LS: Command = Command {
    names: &["network ls", "network list"],
    usage: "[OPTIONS]",
    about: "List networks",
    flags: &[&[
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "table, json, or a template such as '{{.Name}}'"),
        Flag::switch("no-trunc", "Don't shorten"),
        Flag::switch("quiet", "Show only ids").short('q'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(ls(session, matches)),
};

/// `capsa network rm`.
pub(crate) static RM: Command = Command {
    names: &["network rm", "network remove"],
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Remove networks",
    flags: &[&[Flag::switch("force", "Don't fail when there is no such network").short('f')]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(rm(session, matches)),
};

/// `capsa network connect`.
pub(crate) static CONNECT: Command = Command {
    names: &["network connect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    flags: &[&[
        Flag::list("alias", "Further name on this network").word("strings"),
        Flag::list("driver-opt", "Option of the driver, KEY=VALUE").word("strings"),
        Flag::int("gw-priority", "Whose gateway is the default: the highest wins"),
        Flag::text("ip", "IPv4 address"),
        Flag::text("ip6", "IPv6 address"),
        Flag::list("link", "Link to another container"),
        Flag::list("link-local-ip", "Further link-local address").word("strings"),
    ]],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(connect(session, matches)),
};

/// `capsa network disconnect`.
pub(crate) static DISCONNECT: Command = Command {
    names: &["network disconnect"],
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    flags: &[&[Flag::switch("force", "Even when the container is in the way").short('f')]],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(disconnect(session, matches)),
};

async fn create(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let text = |flag: &str, otherwise: &str| matches.text(flag).unwrap_or(otherwise).to_owned();
    let request = NetworkCreate {
        name: matches.arg(0).to_owned(),
        driver: text("driver", "bridge"),
        scope: text("scope", ""),
        enable_ipv4: matches.switch("ipv4"),
        enable_ipv6: matches.switch("ipv6"),
        ipam: Some(Ipam {
            driver: text("ipam-driver", "default"),
            options: Some(map(&matches.list("ipam-opt"))),
            config: Some(subnets(&matches)?),
        }),
        internal: matches.flag("internal"),
        attachable: matches.flag("attachable"),
        ingress: matches.flag("ingress"),
        config_only: matches.flag("config-only"),
        config_from: matches
            .text("config-from")
            .map(|network| ConfigReference { network: network.to_owned() }),
        options: map(&matches.list("opt")),
        labels: map(&matches.list("label")),
    };
    let made: NetworkCreated = session.client()?.post("/networks/create", &request).await?;
    if !made.warning.is_empty() {
        note(&format!("WARNING: {}", made.warning));
    }
    line(&made.id);
    Ok(0)
}

/// Each subnet with the range, gateway and addresses that lie in it.
fn subnets(matches: &Matches) -> Result<Vec<IpamConfig>> {
    let split = |flag: &str| -> Vec<String> {
        let lists = matches.list(flag);
        lists.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect()
    };
    let mut configs: Vec<(Prefix, IpamConfig)> = Vec::new();
    for text in split("subnet") {
        let prefix = Prefix::parse(&text)?;
        if configs
            .iter()
            .any(|(other, _)| other.holds(prefix.address) || prefix.holds(other.address))
        {
            return Err(Failure::said(
                "multiple overlapping subnet configuration is not supported",
            ));
        }
        configs.push((prefix, IpamConfig { subnet: text, ..IpamConfig::default() }));
    }
    let mut place = |text: &str, what: &str, set: &dyn Fn(&mut IpamConfig)| {
        let address = Prefix::parse(text)?.address;
        let config = configs.iter_mut().find(|(prefix, _)| prefix.holds(address));
        config
            .map(|(_, config)| set(config))
            .ok_or_else(|| Failure::said(format!("no matching subnet for {what} {text}")))
    };
    for range in split("ip-range") {
        place(&range, "range", &|config| config.ip_range.clone_from(&range))?;
    }
    for gateway in split("gateway") {
        place(&gateway, "gateway", &|config| config.gateway.clone_from(&gateway))?;
    }
    for (name, address) in map(&matches.list("aux-address")) {
        place(&address, "aux-address", &|config| {
            config.auxiliary_addresses.insert(name.clone(), address.clone());
        })?;
    }
    Ok(configs.into_iter().map(|(_, config)| config).collect())
}

/// An address and how many of its bits name the network.
#[derive(Clone, Copy)]
struct Prefix {
    address: std::net::IpAddr,
    bits: u32,
}

impl Prefix {
    fn parse(text: &str) -> Result<Self> {
        let invalid = || Failure::said(format!("invalid CIDR address: {text}"));
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: std::net::IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = if bits.is_empty() { most } else { bits.parse().map_err(|_| invalid())? };
        if bits > most { Err(invalid()) } else { Ok(Self { address, bits }) }
    }

    fn holds(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let (ours, theirs, width) = match (self.address, address) {
            (V4(a), V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (V6(a), V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - self.bits;
        ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
    }
}

const TITLES: Titles = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Label", "LABEL"),
    ("CreatedAt", "CREATED AT"),
];

async fn ls(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let filter = filters(&matches);
    let query: Vec<_> = filter.as_deref().map(|filter| ("filters", filter)).into_iter().collect();
    let path = with_query("/networks", &query);
    let mut networks: Vec<Network> = session.client()?.get(&path).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let whole = matches.flag("no-trunc");
    let rows: Vec<Value> = networks
        .iter()
        .map(|network| {
            let id = if whole { network.id.as_str() } else { short_id(&network.id) };
            row(vec![
                ("CreatedAt", network.created.as_str().into()),
                ("Driver", network.driver.as_str().into()),
                ("ID", id.into()),
                ("IPv4", network.enable_ipv4.to_string().into()),
                ("IPv6", network.enable_ipv6.to_string().into()),
                ("Internal", network.internal.to_string().into()),
                ("Label", lookup(&network.labels)),
                ("Labels", join_labels(&network.labels).into()),
                ("Name", network.name.as_str().into()),
                ("Scope", network.scope.as_str().into()),
            ])
        })
        .collect();
    let asked = matches.text("format").or_else(|| session.config().format("networksFormat"));
    let columns = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    Format::choose(asked, matches.flag("quiet"), columns, "{{.ID}}")?.print(TITLES, &rows)?;
    Ok(0)
}

async fn rm(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let force = matches.flag("force");
    each_argument(&matches.args, 1, |name| async move {
        match client.delete(&format!("/networks/{}", encode(name))).await {
            Ok(_) => Ok(Some(name.to_owned())),
            Err(error) if force && error.status() == Some(404) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn connect(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let list = |flag: &str| -> Option<Vec<String>> {
        let list = matches.list(flag);
        (!list.is_empty()).then(|| list.into_iter().map(str::to_owned).collect())
    };
    let request = NetworkConnect {
        container: matches.arg(1).to_owned(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: matches.text_or_empty("ip").to_owned(),
                ipv6_address: matches.text_or_empty("ip6").to_owned(),
                link_local_ips: list("link-local-ip").unwrap_or_default(),
            }),
            links: list("link"),
            aliases: list("alias"),
            driver_opts: Some(map(&matches.list("driver-opt"))),
            gw_priority: matches.int("gw-priority").unwrap_or(0),
            ..EndpointSettings::default()
        }),
    };
    let path = format!("/networks/{}/connect", encode(matches.arg(0)));
    session.client()?.act(Method::POST, &path, Payload::json(&request)?).await?;
    Ok(0)
}

async fn disconnect(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let request =
        NetworkDisconnect { container: matches.arg(1).to_owned(), force: matches.flag("force") };
    let path = format!("/networks/{}/disconnect", encode(matches.arg(0)));
    session.client()?.act(Method::POST, &path, Payload::json(&request)?).await?;
    Ok(0)
}
