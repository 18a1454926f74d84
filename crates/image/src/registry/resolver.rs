//! From a host to addresses: literal, `/etc/hosts`, then the name servers of
//! `/etc/resolv.conf` with its search list. Read anew each time: both files change.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::config::{RegistryConfig, host_of, is_loopback};
use super::dns::{self, Answer};

const ADDRESSES_MAX: usize = 16;
const DNS_PORT: u16 = 53;
const TIME_MAX: Duration = Duration::from_secs(30);

/// Resolves for the HTTP client.
#[derive(Clone, Debug)]
pub(super) struct Names {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
struct ResolvConf {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Names {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self { hosts: config.hosts.clone(), resolv_conf: config.resolv_conf.clone() }
    }

    /// All addresses of a host, version 4 first.
    pub(super) fn lookup(&self, host: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let listed = in_hosts(&read(&self.hosts), host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if is_loopback(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let conf = ResolvConf::parse(&read(&self.resolv_conf));
        for name in conf.candidates(host) {
            let found = both(&conf.servers, &name, deadline)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let plain = uri.scheme_str() == Some("http");
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let time = (*timeout.after).min(TIME_MAX);
        let found = self.lookup(host_of(authority.host()), Instant::now() + time)?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            addresses.push(SocketAddr::new(address, port));
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// One of the two kinds is enough.
fn both(servers: &[SocketAddr], name: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let v4 = dns::ask(servers, name, false, deadline);
    if matches!(v4, Ok(Answer::NoName)) {
        return Ok(Vec::new());
    }
    let v6 = dns::ask(servers, name, true, deadline);
    match (v4, v6) {
        (Err(error), Err(_)) => Err(error),
        (v4, v6) => Ok([v4, v6].into_iter().flatten().flat_map(Answer::addresses).collect()),
    }
}

impl Answer {
    fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::NoName => Vec::new(),
        }
    }
}

impl ResolvConf {
    fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for dots in words.filter_map(|word| word.strip_prefix("ndots:")) {
                        conf.dots = dots.parse().unwrap_or(conf.dots);
                    }
                }
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        conf
    }

    /// The names to ask for, in order (resolv.conf(5)).
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{host}.{}", domain.trim_matches('.')))
            .collect();
        let dots = host.matches('.').count();
        names.insert(if dots >= self.dots { 0 } else { names.len() }, host.to_owned());
        names
    }
}

/// An address, perhaps with a port (`1.2.3.4:5300`, `[::1]:5300`), as some write it.
fn server(word: &str) -> Option<SocketAddr> {
    let plain = word.split('%').next().unwrap_or(word).parse::<IpAddr>();
    plain.map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(|_| word.parse()).ok()
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// A missing file says nothing.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_before_name_servers_and_comments_don_t_count() {
        let text = "127.0.0.1 localhost\n::2 reg # other\n10.0.0.1\tREG reg.lan\n# 1.1.1.1 reg\n";
        let wanted: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "::2".parse().unwrap()];
        assert_eq!(in_hosts(text, "reg"), wanted);
        assert!(in_hosts(text, "other").is_empty());
    }

    #[test]
    fn the_search_list_is_tried_as_resolv_conf_says() {
        let text = "nameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch a.b c\noptions ndots:2\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.servers.len(), 2);
        assert_eq!(conf.candidates("x"), ["x.a.b", "x.c", "x"]);
        assert_eq!(conf.candidates("x.y.z"), ["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        assert_eq!(conf.candidates("x.y."), ["x.y"]);
        assert_eq!(ResolvConf::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
