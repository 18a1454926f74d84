//! Ports: `80/tcp`, ranges, and what is published where.

use std::net::IpAddr;

use capsa_api::types::{HostConfig, PortBinding, Set};
use capsa_engine::spec::{Port, Protocol, PublishSpec};

use crate::error::{ApiError, Result};

/// Reads the exposed ports of a config; a key may be a range.
pub(crate) fn exposed(set: &Set) -> Result<Vec<Port>> {
    let mut ports = Vec::with_capacity(set.len());
    for key in set.keys() {
        let (first, last, protocol) = port_range(key)?;
        ports.extend((first..=last).map(|number| Port { number, protocol }));
    }
    Ok(ports)
}

/// Reads the port bindings of a host config; a port without a binding is only exposed.
pub(crate) fn published(host: &HostConfig) -> Result<Vec<PublishSpec>> {
    let mut specs = Vec::new();
    for (key, bindings) in &host.port_bindings {
        let (first, last, protocol) = port_range(key)?;
        if first != last {
            return Err(invalid_port(key));
        }
        let port = Port { number: first, protocol };
        for binding in bindings.iter().flatten() {
            specs.push(publish(port, binding)?);
        }
    }
    Ok(specs)
}

/// `80/tcp`, as the wire has it.
pub(crate) fn text(port: Port) -> String {
    format!("{}/{}", port.number, protocol_name(port.protocol))
}

/// `tcp`, `udp` or `sctp`.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// `80`, `80/udp` or `8000-8010/tcp`: first, last, protocol.
pub(crate) fn port_range(text: &str) -> Result<(u16, u16, Protocol)> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(invalid_port(text)),
    };
    let (first, last) = number_range(numbers).ok_or_else(|| invalid_port(text))?;
    if first == 0 { Err(invalid_port(text)) } else { Ok((first, last, protocol)) }
}

fn publish(port: Port, binding: &PortBinding) -> Result<PublishSpec> {
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| {
            ApiError::bad_request(format!("invalid IP address in port binding: {text:?}"))
        })?),
    };
    let host_ports = match binding.host_port.as_str() {
        "" => Some((0, 0)),
        text => number_range(text),
    };
    let (host_port, host_port_end) = host_ports.ok_or_else(|| invalid_port(&binding.host_port))?;
    Ok(PublishSpec { port, host_ip, host_port, host_port_end })
}

fn number_range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

fn invalid_port(text: &str) -> ApiError {
    ApiError::bad_request(format!("invalid port specification: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_numbers_ranges_and_protocols() {
        assert_eq!(port_range("80"), Ok((80, 80, Protocol::Tcp)));
        assert_eq!(port_range("53/UDP"), Ok((53, 53, Protocol::Udp)));
        assert_eq!(port_range("8000-8010/sctp"), Ok((8000, 8010, Protocol::Sctp)));
        for bad in ["", "0", "x", "80/icmp", "70000", "9-8", "-1", "+80", "80-"] {
            let message = port_range(bad).unwrap_err().message;
            assert_eq!(message, format!("invalid port specification: {bad:?}"));
        }
    }

    #[test]
    fn an_empty_host_port_is_any_free_one() {
        let binding =
            |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let port = Port { number: 80, protocol: Protocol::Tcp };
        let any = publish(port, &binding("", "")).unwrap();
        assert_eq!((any.host_ip, any.host_port, any.host_port_end), (None, 0, 0));
        let range = publish(port, &binding("::1", "8000-8002")).unwrap();
        assert_eq!((range.host_port, range.host_port_end), (8000, 8002));
        assert!(publish(port, &binding("host", "1")).is_err());
        assert!(publish(port, &binding("", "99999")).is_err());
    }
}
