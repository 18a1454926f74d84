//! What may be configured about registries, and who somebody is to them. Plain data:
//! the file it comes from and the user's stored logins are others' affair.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::plain_authority;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Registries and the base URLs tried before them, in order. A pattern is a
    /// registry's name, `*.example.com`, or `*` for all; the first that fits counts. A
    /// path in a URL comes before the repository, user and password in it are for it.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Registries (`host[:port]`) or networks (`10.0.0.0/8`) whose certificate is not
    /// verified, and which are spoken to without TLS when they have none. Loopback
    /// always is one.
    pub insecure: Vec<String>,
    /// Holds a directory for each `host[:port]`: `*.crt` are authorities to trust there,
    /// `*.cert` with `*.key` is what to show.
    pub certs_d: PathBuf,
    /// File of certificates to trust, instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Names and their addresses, asked first.
    pub hosts: PathBuf,
    /// Lists the name servers.
    pub resolv_conf: PathBuf,
    /// Proxy for connections with TLS, `http://[user:password@]host[:port]`; by default
    /// what `HTTPS_PROXY` or `ALL_PROXY` says.
    pub proxy: Option<String>,
    /// What is reached without it: names (and those below them), addresses, networks,
    /// or `*`; by default what `NO_PROXY` says. Loopback always is.
    pub no_proxy: Vec<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often and when to try again.
    pub retries: Retries,
    /// Upload in pieces of this many bytes; without it a blob is one request.
    pub chunk_bytes: Option<u64>,
}

/// How long to wait for the other side.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the name to be resolved, and again for a connection with TLS.
    pub connect: Duration,
    /// For the next byte, in either direction.
    pub stall: Duration,
    /// For the answer to an upload: the registry may hash it or move it elsewhere.
    pub commit: Duration,
}

/// How often and when to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Tries in a row without progress.
    pub attempts: u32,
    /// Before the second; doubled after each, with jitter.
    pub first_delay: Duration,
    /// At most this between two; a registry that asks for more gets no further try.
    pub max_delay: Duration,
}

/// Who somebody is to a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A user and a password, or a token that stands for it.
    Password {
        /// Name of the account.
        username: String,
        /// Its secret.
        password: String,
    },
    /// What an earlier login got instead of a password (OAuth2's refresh token).
    Identity(String),
    /// A token for the registry itself, got elsewhere.
    Bearer(String),
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_d: PathBuf::from("/etc/docker/certs.d"),
            ca_bundle: std::env::var_os("SSL_CERT_FILE").map(PathBuf::from),
            hosts: PathBuf::from("/etc/hosts"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            proxy: env("HTTPS_PROXY").or_else(|| env("ALL_PROXY")),
            no_proxy: env("NO_PROXY").map(|list| split(&list)).unwrap_or_default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            chunk_bytes: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            commit: Duration::from_secs(300),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Bearer(_) => "Bearer(..)",
        })
    }
}

impl RegistryConfig {
    /// Whether `host[:port]` may be spoken to without verification.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>().ok();
        let listed = |entry: &String| match entry.parse::<ipnet::IpNet>() {
            Ok(network) => address.is_some_and(|address| network.contains(&address)),
            Err(_) => entry.eq_ignore_ascii_case(authority),
        };
        let plain = |url: &String| plain_authority(url).is_some_and(|plain| plain == authority);
        is_loopback(authority)
            || self.insecure.iter().any(listed)
            || self.mirrors.iter().any(|(_, urls)| urls.iter().any(plain))
    }

    /// The proxy on the way to `host[:port]`.
    pub(super) fn proxy_for(&self, authority: &str) -> Option<&str> {
        let host = host_of(authority);
        let address = host.parse::<IpAddr>().ok();
        let direct = |entry: &String| match entry.parse::<ipnet::IpNet>() {
            Ok(network) => address.is_some_and(|address| network.contains(&address)),
            Err(_) => {
                let name = entry.trim_start_matches("*.").trim_start_matches('.');
                let below = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
                entry == "*" || name == host || name == authority || (below && !name.is_empty())
            }
        };
        let none = is_loopback(authority) || self.no_proxy.iter().any(direct);
        self.proxy.as_deref().filter(|_| !none)
    }

    /// The mirrors of a registry, in order, and whether their pattern names several.
    pub(super) fn mirrors_of(&self, domain: &str) -> (&[String], bool) {
        let found = self.mirrors.iter().find(|(pattern, _)| fits(pattern, domain));
        found.map_or((&[], false), |(pattern, urls)| (urls, pattern.starts_with('*')))
    }
}

/// The host of `host[:port]`, without brackets.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Whether this is the machine itself, whatever a name server says.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Either case: both are in use.
fn env(name: &str) -> Option<String> {
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
    value.ok().filter(|value| !value.is_empty())
}

fn split(list: &str) -> Vec<String> {
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn fits(pattern: &str, domain: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => domain.len() > suffix.len() && domain.ends_with(suffix),
        None => pattern == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_is_listed_is_insecure() {
        let insecure = vec!["10.0.0.0/8".to_owned(), "reg.lan:5000".to_owned()];
        let config = RegistryConfig { insecure, ..RegistryConfig::default() };
        for yes in ["localhost", "localhost:5000", "127.3.0.1:1", "[::1]:5000", "10.1.2.3:80"] {
            assert!(config.is_insecure(yes), "{yes}");
        }
        assert!(config.is_insecure("reg.lan:5000"));
        for no in ["reg.lan", "11.1.2.3", "docker.io", "10.example.com", "[fe80::1]:5000"] {
            assert!(!config.is_insecure(no), "{no}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_gives_the_mirrors() {
        let of = |pattern: &str, url: &str| (pattern.to_owned(), vec![url.to_owned()]);
        let mirrors = vec![of("docker.io", "a"), of("*.example.com", "b"), of("*", "c")];
        let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
        let first = |domain| (config.mirrors_of(domain).0[0].as_str(), config.mirrors_of(domain).1);
        assert_eq!(first("docker.io"), ("a", false));
        assert_eq!(first("x.example.com"), ("b", true));
        assert_eq!(first("example.com"), ("c", true));
    }

    #[test]
    fn the_proxy_is_left_out_for_what_is_listed() {
        let proxy = Some("http://p:1".to_owned());
        let no_proxy = split("lan, .corp.example,10.0.0.0/8,192.0.2.1,*.x.y,exact:5000");
        let config = RegistryConfig { proxy, no_proxy, ..RegistryConfig::default() };
        for direct in [
            "lan",
            "a.lan:5000",
            "r.corp.example",
            "10.2.3.4",
            "192.0.2.1:80",
            "a.x.y",
            "exact:5000",
        ] {
            assert_eq!(config.proxy_for(direct), None, "{direct}");
        }
        for proxied in ["docker.io", "vlan", "11.0.0.1", "exact:5001"] {
            assert_eq!(config.proxy_for(proxied), Some("http://p:1"), "{proxied}");
        }
        assert_eq!(config.proxy_for("localhost:5000"), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let who = Credentials::Password { username: "me".into(), password: "secret".into() };
        assert!(!format!("{who:?}").contains("secret"));
    }
}
