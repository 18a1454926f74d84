//! Which daemon: `-H`, `--context`, `CAPSA_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the
//! current context, and at last the host's own socket.
//!
//! Names of hosts are looked up in /etc/hosts only: a static binary has no resolver.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use capsa_api::Endpoint;

use super::{Session, context};
use crate::failure::{Failure, Result};

/// The host's own daemon.
pub(crate) const DEFAULT_SOCKET: &str = "/run/capsa/capsa.sock";

const TCP_PORT: u16 = 2375;

/// Decides.
pub(super) fn choose(session: &Session) -> Result<Endpoint> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(host) = &session.globals.host {
        if session.globals.context.is_some() {
            return Err(Failure::said(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        return parse_host(host);
    }
    if let Some(name) = &session.globals.context {
        return context::endpoint(session.config(), name);
    }
    if let Some(host) = variable("CAPSA_HOST").or_else(|| variable("DOCKER_HOST")) {
        return parse_host(&host);
    }
    let name = variable("DOCKER_CONTEXT").or_else(|| session.config().current_context.clone());
    match name {
        Some(name) => context::endpoint(session.config(), &name),
        None => Ok(Endpoint::Unix(DEFAULT_SOCKET.into())),
    }
}

/// Reads `unix:///path`, `tcp://host:port`, `http://host:port` or `host:port`.
pub(crate) fn parse_host(text: &str) -> Result<Endpoint> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.is_empty() => Ok(Endpoint::Unix(DEFAULT_SOCKET.into())),
        "unix" => Ok(Endpoint::Unix(rest.into())),
        "tcp" | "http" => parse_tcp(rest).map(Endpoint::Tcp),
        "ssh" | "npipe" | "fd" | "https" => Err(Failure::said(format!(
            "the daemon address {text} can't be used: {scheme}:// is not supported"
        ))),
        _ => Err(Failure::said(format!("Unable to parse docker host `{text}`"))),
    }
}

fn parse_tcp(text: &str) -> Result<SocketAddr> {
    let text = text.trim_end_matches('/');
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| Failure::said(format!("invalid port in {text}")))?)
        }
        _ => (text, TCP_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match host.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) if host.is_empty() || host == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        Err(_) => from_hosts_file(host),
    };
    address.map(|address| SocketAddr::new(address, port)).ok_or_else(|| {
        Failure::said(format!("the host {host} isn't in /etc/hosts; give its address instead"))
    })
}

fn from_hosts_file(host: &str) -> Option<IpAddr> {
    let text = std::fs::read_to_string("/etc/hosts").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_every_form() {
        let read = |text| parse_host(text).map(|endpoint| endpoint.to_string()).map_err(|f| f.text);
        assert_eq!(read("unix:///x/y.sock").unwrap(), "unix:///x/y.sock");
        assert_eq!(read("unix://").unwrap(), format!("unix://{DEFAULT_SOCKET}"));
        assert_eq!(read("tcp://127.0.0.1:99").unwrap(), "tcp://127.0.0.1:99");
        assert_eq!(read("10.1.2.3").unwrap(), "tcp://10.1.2.3:2375");
        assert_eq!(read("tcp://[::1]:5/").unwrap(), "tcp://[::1]:5");
        assert_eq!(read("localhost:7").unwrap(), "tcp://127.0.0.1:7");
        assert!(read("ssh://a").unwrap_err().contains("not supported"));
        assert!(read("tcp://no-such-name.invalid").unwrap_err().contains("/etc/hosts"));
    }
}
