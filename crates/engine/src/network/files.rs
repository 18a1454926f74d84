//! The files that tell a container its names: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use capsa_net::files::{self, ResolvConf};

use super::Attachment;
use crate::container::record::Record;
use crate::options::EngineConfig;
use crate::spec::NetworkMode;
use crate::view::NetworkFiles;
use crate::{Error, Result};

/// Writes all three.
pub(crate) fn write(
    places: &NetworkFiles,
    record: &Record,
    attachment: Option<&Attachment>,
    config: &EngineConfig,
) -> Result<()> {
    put(&places.hostname, &files::hostname(&record.resolved.hostname))?;
    put(&places.hosts, &hosts(record, attachment)?)?;
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    put(&places.resolv_conf, &resolv_conf(record, attachment.is_some(), config, &host).render())
}

fn hosts(record: &Record, attachment: Option<&Attachment>) -> Result<String> {
    let network = &record.spec.network;
    if network.mode == NetworkMode::Host && network.extra_hosts.is_empty() {
        return Ok(fs::read_to_string("/etc/hosts").unwrap_or_default());
    }
    let gateway = attachment.map_or(Ipv4Addr::LOCALHOST, |attachment| attachment.addresses().1);
    let extra: Vec<_> = network
        .extra_hosts
        .iter()
        .map(|entry| extra_host(entry, gateway))
        .collect::<Result<_>>()?;
    let own = attachment.and_then(|attachment| attachment.addresses().0).map(|address| {
        let domain = record.spec.domainname.as_deref().unwrap_or_default();
        (IpAddr::V4(address), files::own_names(&record.resolved.hostname, domain))
    });
    Ok(files::hosts(own.as_slice(), &extra))
}

/// `name:address` or `name=address`; `host-gateway` is the host as seen from the network.
fn extra_host(entry: &str, gateway: Ipv4Addr) -> Result<(IpAddr, Vec<String>)> {
    let invalid = || Error::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once(['=', ':']).ok_or_else(invalid)?;
    let address = match address {
        "host-gateway" => IpAddr::V4(gateway),
        text => text.trim_matches(['[', ']']).parse().map_err(|_| invalid())?,
    };
    Ok((address, vec![name.to_owned()]))
}

/// The host's file with the daemon's and the container's own choices over it.
fn resolv_conf(record: &Record, embedded: bool, config: &EngineConfig, host: &str) -> ResolvConf {
    let network = &record.spec.network;
    let mut conf = ResolvConf::parse(host);
    let chosen = [&network.dns, &config.dns].into_iter().find(|servers| !servers.is_empty());
    if let Some(servers) = chosen {
        conf.servers.clone_from(servers);
    }
    if !network.dns_search.is_empty() {
        conf.search = network.dns_search.iter().filter(|name| *name != ".").cloned().collect();
    }
    if !network.dns_options.is_empty() {
        conf.options.clone_from(&network.dns_options);
    }
    match network.mode {
        NetworkMode::Host => conf,
        _ if embedded => conf.for_own_names(),
        _ => conf.for_direct_use(),
    }
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::kernel(format!("{}: {error}", path.display())))
}
