//! Where a request goes, as text: joining a `Location`, adding to a query, and what
//! counts as the same server. Pure.

use std::fmt;

use ureq::http::Uri;

/// Scheme, host and port: who gets to see a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Of an absolute http or https URL without user or password.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match (authority.port_u16(), scheme) {
            (Some(port), "http" | "https") => port,
            (None, "http") => 80,
            (None, "https") => 443,
            _ => return None,
        };
        let host = authority.host().to_ascii_lowercase();
        Some(Self { scheme: scheme.to_owned(), host, port })
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// `host[:port]` as users write it.
    pub(super) fn authority(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// What `location`, seen in an answer from `base`, means (RFC 3986, 5.2, without dots).
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or(location);
    if location.contains("://") && Origin::of(location).is_some() {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(rest) = location.strip_prefix("//") {
        let url = format!("{scheme}://{rest}");
        return Origin::of(&url).map(|_| url);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = path.split('?').next().unwrap_or(path);
    let url = match location.chars().next() {
        None => base.to_owned(),
        Some('/') => format!("{scheme}://{authority}{location}"),
        Some('?') => format!("{scheme}://{authority}{path}{location}"),
        Some(_) => {
            let parent = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            format!("{scheme}://{authority}{parent}{location}")
        }
    };
    Origin::of(&url).map(|_| url)
}

/// `url` with one more parameter.
pub(super) fn with_query(url: &str, key: &str, value: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{key}={}", encode(value))
}

/// Percent-encoding of what could be read as something else in a query or a form.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_as_a_browser_would() {
        let base = "https://r.example:5000/v2/a/b?x=1";
        for (location, wanted) in [
            ("/v2/c", "https://r.example:5000/v2/c"),
            ("c?d", "https://r.example:5000/v2/a/c?d"),
            ("?d=1", "https://r.example:5000/v2/a/b?d=1"),
            ("//other/x", "https://other/x"),
            ("http://other:1/x#f", "http://other:1/x"),
        ] {
            assert_eq!(join(base, location).as_deref(), Some(wanted), "{location}");
        }
        for bad in ["ftp://x/y", "http://user:pw@x/y", "http://", "/a b\u{1}"] {
            let joined = join(base, bad);
            assert!(joined.is_none_or(|url| url.starts_with("https://r.example")), "{bad}");
        }
    }

    #[test]
    fn an_origin_has_scheme_host_and_port() {
        assert_eq!(Origin::of("https://A.b/x"), Origin::of("https://a.b:443/y"));
        assert_ne!(Origin::of("https://a.b/x"), Origin::of("http://a.b/x"));
        assert_ne!(Origin::of("https://a.b/x"), Origin::of("https://a.b:444/x"));
        assert_eq!(Origin::of("file:///x"), None);
    }

    #[test]
    fn parameters_are_added_and_encoded() {
        assert_eq!(with_query("http://a/b", "c", "d e&f"), "http://a/b?c=d%20e%26f");
        assert_eq!(with_query("http://a/b?x", "c", "sha256:1"), "http://a/b?x&c=sha256:1");
    }
}
