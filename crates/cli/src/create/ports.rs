//! `--publish` and `--expose`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use capsa_api::types::{PortBinding, PortMap, Set};

use crate::failure::{Failure, Result};
use crate::flags::Matches;
use crate::flags::values::parse_uint;

/// Exposed ports and where they are published.
pub(super) fn read(matches: &Matches) -> Result<(Set, PortMap)> {
    let mut exposed = Set::new();
    let mut bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for text in matches.list("publish") {
        let plain = long_form(text)?;
        for (port, binding) in publish(plain.as_deref().unwrap_or(text))? {
            exposed.insert(port.clone(), Default::default());
            bindings.entry(port).or_default().push(binding);
        }
    }
    for text in matches.list("expose") {
        exposed.extend(expose(text)?.into_iter().map(|port| (port, Default::default())));
    }
    Ok((exposed, bindings.into_iter().map(|(port, list)| (port, Some(list))).collect()))
}

/// `target=80,published=8080,protocol=tcp` as the short form; nothing when it is that already.
fn long_form(text: &str) -> Result<Option<String>> {
    if !text.contains('=') {
        return Ok(None);
    }
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Failure::said(format!("invalid field: {field}")))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "mode" => {}
            _ => return Err(Failure::said(format!("invalid field key: {key}"))),
        }
    }
    if target.is_empty() {
        return Err(Failure::said(format!("missing mandatory field {:?}", "target")));
    }
    Ok(Some(match published {
        "" => format!("{target}/{protocol}"),
        published => format!("{published}:{target}/{protocol}"),
    }))
}

/// `[[address:]host:]container[/protocol]`, each side maybe a range.
fn publish(text: &str) -> Result<Vec<(String, PortBinding)>> {
    let (address, host, container) = sides(text)?;
    let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = protocol.to_lowercase();
    if container.is_empty() {
        return Err(Failure::said(format!("no port specified: {text}<empty>")));
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(Failure::said(format!("invalid proto: {protocol}")));
    }
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(Failure::said(format!("invalid IP address: {address}")));
    }
    let (from, to) = range(container)
        .map_err(|_| Failure::said(format!("invalid containerPort: {container}")))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).map_err(|_| Failure::said(format!("invalid hostPort: {host}")))?),
    };
    if let Some((host_from, host_to)) = host_range
        && to - from != host_to - host_from
        && to != from
    {
        return Err(Failure::said(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        )));
    }
    Ok((from..=to)
        .map(|port| {
            let host_port = match host_range {
                None => String::new(),
                Some((host_from, host_to)) if from == to && host_from != host_to => {
                    format!("{host_from}-{host_to}")
                }
                Some((host_from, _)) => (host_from + (port - from)).to_string(),
            };
            let binding = PortBinding { host_ip: address.to_owned(), host_port };
            (format!("{port}/{protocol}"), binding)
        })
        .collect())
}

/// Address, host side and container side; an IPv6 address stands in brackets.
fn sides(text: &str) -> Result<(&str, &str, &str)> {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    if rest.is_empty() {
        return Ok(("", "", container));
    }
    let Some((address, host)) = rest.rsplit_once(':') else { return Ok(("", rest, container)) };
    if let Some(inner) = address.strip_prefix('[') {
        let inner = inner
            .strip_suffix(']')
            .ok_or_else(|| Failure::said(format!("invalid IP address: {address}")))?;
        return Ok((inner, host, container));
    }
    Ok((address, host, container))
}

fn expose(text: &str) -> Result<Vec<String>> {
    if text.contains(':') {
        return Err(Failure::said(format!("invalid port format for --expose: {text}")));
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (from, to) = range(ports).map_err(|why| {
        Failure::said(format!("invalid range format for --expose: {text}, error: {why}"))
    })?;
    Ok((from..=to).map(|port| format!("{port}/{}", protocol.to_lowercase())).collect())
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<(u64, u64), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (parse_uint(from, 65535)?, parse_uint(to, 65535)?);
    match from <= to {
        true => Ok((from, to)),
        false => Err(format!("invalid range specified for port: {text}")),
    }
}
