//! Image references: `[domain/]path[:tag][@digest]`, with Docker's defaults.
//!
//! `busybox` means `docker.io/library/busybox`, and is shown again as `busybox`
//! (the familiar form). The first component is a domain when it has a dot or a
//! colon, or is `localhost`, or has an upper-case letter. Grammar: distribution
//! spec, and the reference package of the registry project.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A parsed reference; its parts are valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A string that is no reference; the texts are those that Docker's clients know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Something in it is not allowed.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Too long.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// 64 hex digits are an id, not a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    IdLike(String),
}

impl Reference {
    /// Parses what a user writes.
    ///
    /// # Errors
    /// [`ReferenceError`] with Docker's text.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_id(text) {
            return Err(ReferenceError::IdLike(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|_| ReferenceError::Format)?))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = split_domain(name);
        check_path(&path)?;
        if !is_domain(&domain) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + path.len() + 1 > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// Registry host, with port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository below the domain.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name without the defaults, `busybox`, `me/app`, `host:5000/app`, unless it would
    /// then be read as another: `docker.io/localhost/app`.
    pub fn familiar_name(&self) -> String {
        let short = match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short,
            _ => &self.path,
        };
        let another = match short.split_once('/') {
            Some((first, _)) => looks_like_domain(first),
            None => is_id(short),
        };
        if self.domain == DEFAULT_DOMAIN && !another {
            return short.to_owned();
        }
        format!("{}/{}", self.domain, self.path)
    }

    /// The familiar name with tag and digest as they are.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The full name with tag and digest as they are.
    pub fn canonical(&self) -> String {
        self.with_suffix(format!("{}/{}", self.domain, self.path))
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    /// When `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same with `latest` where neither tag nor digest was written.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A colon is a tag's only after the last slash; before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let start = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[start..].find(':') {
        Some(colon) => (&text[..start + colon], Some(&text[start + colon + 1..])),
        None => (text, None),
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if looks_like_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn looks_like_domain(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_domain_label),
    };
    port_ok && host_ok
}

fn is_domain_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        let shown = path.strip_prefix(OFFICIAL).unwrap_or(path);
        return Err(ReferenceError::Uppercase(shown.to_owned()));
    }
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(ReferenceError::Format) }
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_alnum(first)
        && is_alnum(last)
        && bytes.split(is_alnum).all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            other => other.iter().all(|b| *b == b'-'),
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        && tag.bytes().next().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_added_and_hidden_again() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("me/app:v1", "docker.io/me/app:v1", "me/app:v1"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
            ("index.docker.io/library/x", "docker.io/library/x", "x"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (reference.canonical(), reference.familiar()),
                (canonical.into(), familiar.into())
            );
        }
    }

    #[test]
    fn a_name_that_would_be_read_as_another_keeps_its_domain() {
        let id = "0123456789abcdef".repeat(4);
        for text in ["docker.io/localhost/x", "docker.io/docker.io/x", "docker.io/a.b/x:1"] {
            assert_eq!(Reference::parse(text).unwrap().familiar(), text);
        }
        let named = Reference::parse(&format!("docker.io/library/{id}")).unwrap();
        assert_eq!(Reference::parse(&named.familiar()), Ok(named));
    }

    #[test]
    fn the_default_tag_is_latest_unless_a_digest_names_the_image() {
        let digest = Digest::sha256(b"x");
        let plain = Reference::parse("x").unwrap().with_default_tag();
        let pinned = Reference::parse(&format!("x@{digest}")).unwrap().with_default_tag();
        assert_eq!((plain.tag(), pinned.tag()), (Some("latest"), None));
    }

    #[test]
    fn bad_references_are_refused() {
        for bad in [
            "",
            ":x",
            "a:",
            "A",
            "a//b",
            "a/",
            "-a",
            "a_-b",
            "a:b:c",
            "a@sha256:1",
            "a b",
            "..",
            "a/../b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(Reference::parse(&"0123456789abcdef".repeat(4)).is_err());
    }
}
