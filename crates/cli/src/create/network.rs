//! Networks to join, name servers, extra hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use capsa_api::types::{EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig};

use super::list_or_none;
use super::mounts::fields;
use crate::failure::{Failure, Result};
use crate::flags::Matches;
use crate::flags::values::parse_int;

/// Says whether `--add-host` is a name and an address.
pub(super) fn check_host(text: &str) -> Result<(), String> {
    extra_host(text).map(drop)
}

/// Says whether a text is an address.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// Fills in the network part of both configurations.
pub(super) fn fill(
    matches: &Matches,
    host: &mut HostConfig,
    networking: &mut NetworkingConfig,
) -> Result<()> {
    let owned = |flag| matches.list(flag).into_iter().map(str::to_owned).collect::<Vec<_>>();
    host.dns = owned("dns");
    host.dns_options = owned("dns-option");
    host.dns_search = owned("dns-search");
    host.links = list_or_none(matches, "link");
    let hosts: Result<Vec<String>, String> =
        matches.list("add-host").into_iter().map(extra_host).collect();
    host.extra_hosts = Some(hosts?).filter(|hosts| !hosts.is_empty());
    let (mode, endpoints) = endpoints(matches)?;
    host.network_mode = mode;
    networking.endpoints_config = endpoints;
    Ok(())
}

/// The mode, and one entry for each network that has a name.
fn endpoints(matches: &Matches) -> Result<(String, BTreeMap<String, EndpointSettings>)> {
    let mut endpoints = BTreeMap::new();
    let mut mode = None;
    for text in matches.list("network") {
        let (name, settings) = attachment(text)?;
        if mode.is_none() {
            mode = Some(name.clone());
        }
        if endpoints.insert(name.clone(), settings).is_some() {
            return Err(Failure::said(format!("network {name:?} is specified multiple times")));
        }
    }
    let mode = mode.unwrap_or_else(|| "default".to_owned());
    if endpoints.len() > 1
        && let Some(shared) = endpoints.keys().find(|name| !is_named(name))
    {
        return Err(Failure::said(format!(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes ({shared})"
        )));
    }
    let first = endpoints.entry(mode.clone()).or_default();
    apply_flags(matches, first)?;
    if !is_named(&mode) {
        if matches.given("network-alias") {
            return Err(Failure::said(format!(
                "conflicting options: network-scoped aliases and the {mode} network mode"
            )));
        }
        endpoints.clear();
    }
    Ok((mode, endpoints))
}

/// `--ip`, `--network-alias` and the like belong to the first network.
fn apply_flags(matches: &Matches, first: &mut EndpointSettings) -> Result<()> {
    let twice = |what: &str| {
        Failure::said(format!(
            "conflicting options: cannot specify both --{what} and per-network {what}"
        ))
    };
    let aliases = matches.list("network-alias");
    if !aliases.is_empty() {
        if first.aliases.is_some() {
            return Err(twice("network-alias"));
        }
        first.aliases = Some(aliases.into_iter().map(str::to_owned).collect());
    }
    if matches.given("link") && matches.given("network") {
        first.links = list_or_none(matches, "link");
    }
    if let Some(mac) = matches.text("mac-address") {
        if !first.mac_address.is_empty() {
            return Err(twice("mac-address"));
        }
        check_mac(mac)?;
        first.mac_address = mac.to_owned();
    }
    let local = matches.list("link-local-ip");
    if matches.given("ip") || matches.given("ip6") || !local.is_empty() {
        let ipam = first.ipam_config.get_or_insert_default();
        if matches.given("ip") && !ipam.ipv4_address.is_empty() {
            return Err(twice("ip"));
        }
        ipam.ipv4_address.push_str(matches.text_or_empty("ip"));
        ipam.ipv6_address.push_str(matches.text_or_empty("ip6"));
        ipam.link_local_ips.extend(local.into_iter().map(str::to_owned));
    }
    Ok(())
}

/// One `--network`: a bare name, or `name=…,alias=…`.
fn attachment(text: &str) -> Result<(String, EndpointSettings)> {
    let mut settings = EndpointSettings::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), settings));
    }
    let mut name = String::new();
    for field in fields(text)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Failure::said(format!("invalid field: {field}")))?;
        let ipam = || EndpointIpamConfig::default();
        match key.to_lowercase().as_str() {
            "name" => name = value.to_owned(),
            "alias" => settings.aliases.get_or_insert_default().push(value.to_owned()),
            "driver-opt" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                let options = settings.driver_opts.get_or_insert_default();
                options.insert(key.to_owned(), value.to_owned());
            }
            "ip" => {
                value.clone_into(&mut settings.ipam_config.get_or_insert_with(ipam).ipv4_address)
            }
            "ip6" => {
                value.clone_into(&mut settings.ipam_config.get_or_insert_with(ipam).ipv6_address)
            }
            "link-local-ip" => {
                settings.ipam_config.get_or_insert_with(ipam).link_local_ips.push(value.to_owned());
            }
            "mac-address" => {
                check_mac(value)?;
                value.clone_into(&mut settings.mac_address);
            }
            "gw-priority" => settings.gw_priority = parse_int(value)?,
            other => return Err(Failure::said(format!("invalid field key {other}"))),
        }
    }
    if name.is_empty() {
        return Err(Failure::said("network name is not specified"));
    }
    Ok((name, settings))
}

fn is_named(mode: &str) -> bool {
    !(mode == "host" || mode == "none" || mode.starts_with("container:"))
}

fn check_mac(text: &str) -> Result<()> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts.len() == 6 && parts.iter().all(pair) {
        true => Ok(()),
        false => Err(Failure::said(format!("{text} is not a valid mac address"))),
    }
}

/// `name:address` or `name=address`, as `name:address`.
fn extra_host(text: &str) -> Result<String, String> {
    let at = text.find([':', '=']).filter(|at| *at > 0);
    let at = at.ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}
