//! Where a registry is reached: the mirrors of its name in order, then itself.

use super::config::{Credentials, RegistryConfig};
use super::url::Origin;

/// Docker's registry answers elsewhere than it is called.
const HUB: &[&str] = &["docker.io", "index.docker.io"];
const HUB_HOST: &str = "registry-1.docker.io";

/// One place that may have a repository.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `host[:port]`.
    pub(super) authority: String,
    /// `http` or `https` when it is given; else it is found out.
    pub(super) scheme: Option<String>,
    /// Comes before the repository, with a final slash.
    pub(super) prefix: String,
    /// The registry that is meant, told to a mirror of several.
    pub(super) namespace: Option<String>,
    /// Its own, for a mirror.
    pub(super) credentials: Option<Credentials>,
    /// Not a mirror.
    pub(super) is_origin: bool,
}

/// Where to ask for what `domain` has. A mirror's URL that is none is left out.
pub(super) fn endpoints(config: &RegistryConfig, domain: &str) -> Vec<Endpoint> {
    let (mirrors, several) = config.mirrors_of(domain);
    let namespace = several.then(|| domain.to_owned());
    let mut endpoints: Vec<_> =
        mirrors.iter().filter_map(|url| mirror(url, namespace.clone())).collect();
    endpoints.push(origin(domain));
    endpoints
}

/// The registry itself.
pub(super) fn origin(domain: &str) -> Endpoint {
    let authority = if HUB.contains(&domain) { HUB_HOST } else { domain };
    Endpoint {
        authority: authority.to_owned(),
        scheme: None,
        prefix: String::new(),
        namespace: None,
        credentials: None,
        is_origin: true,
    }
}

fn mirror(url: &str, namespace: Option<String>) -> Option<Endpoint> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, authority),
    };
    let origin = Origin::of(&format!("{scheme}://{authority}"))?;
    let credentials = user.map(|user| {
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        Credentials::Password { username: username.to_owned(), password: password.to_owned() }
    });
    let path = path.trim_matches('/');
    Some(Endpoint {
        authority: origin.authority(),
        scheme: Some(scheme.to_owned()),
        prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
        namespace,
        credentials,
        is_origin: false,
    })
}

/// The authority of a mirror that was written down as plain HTTP: that is consent.
pub(super) fn plain_authority(url: &str) -> Option<String> {
    let endpoint = mirror(url, None)?;
    (endpoint.scheme.as_deref() == Some("http")).then_some(endpoint.authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_and_the_hub_is_elsewhere() {
        let urls = ["http://m.lan:5000", "https://u:p@n.lan/hub/", "::"].map(str::to_owned);
        let mirrors = vec![("*".to_owned(), urls.to_vec())];
        let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
        let found = endpoints(&config, "docker.io");
        let names: Vec<_> = found.iter().map(|e| e.authority.as_str()).collect();
        assert_eq!(names, ["m.lan:5000", "n.lan", HUB_HOST]);
        assert_eq!(found[1].prefix, "hub/");
        assert_eq!(found[1].namespace.as_deref(), Some("docker.io"));
        assert!(found[1].credentials.is_some() && found[2].is_origin);
        assert!(config.is_insecure("m.lan:5000") && !config.is_insecure("n.lan"));
    }
}
