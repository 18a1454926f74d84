//! From a tag or digest to the one manifest that is wanted, through indexes.

use capsa_oci::{Descriptor, Digest, Index, Manifest, Platform, media_type as mt};
use serde::Deserialize;
use ureq::http::Method;

use super::blob::BlobReader;
use super::error::clean;
use super::session::{Call, Outcome, Session};
use super::wire::{Answer, header};
use super::{Failure, Step};
use crate::platform::{Choice, choose, is_image, show};

/// Bytes of a manifest or index (the registry's own limit, distribution spec).
const MANIFEST_MAX: u64 = 4 << 20;
/// Bytes of an image config.
const CONFIG_MAX: u64 = 8 << 20;
const NESTING_MAX: usize = 4;
const DIGEST: &str = "docker-content-digest";
const ACCEPTED: &[&str] = &[mt::OCI_INDEX, mt::OCI_MANIFEST, mt::DOCKER_LIST, mt::DOCKER_MANIFEST];
/// The last is what the first tools with this format wrote.
const CONFIGS: &[&str] = &[mt::OCI_CONFIG, mt::DOCKER_CONFIG, "application/octet-stream"];
/// Answers to an `Accept` that they don't fulfil.
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";

/// An image's two documents, and the digest of what was asked for.
pub(super) struct Found {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    /// Of the index, when the name leads to one.
    pub(super) digest: Digest,
}

struct Document {
    bytes: Vec<u8>,
    media_type: String,
    digest: Digest,
}

/// What tells documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// The documents of the image that `name` (a tag or digest) means for `platform`.
pub(super) fn find(session: &Session, name: &str, platform: &Platform) -> Outcome<Found> {
    let mut document = fetch(session, name)?;
    let digest = document.digest.clone();
    for _ in 0..NESTING_MAX {
        if !mt::is_index(&document.media_type) {
            let config = config(session, &document)?;
            return Ok(Found { manifest: document.bytes, config, digest });
        }
        let below = entry(session, &document, platform)?;
        document = fetch(session, below.digest.as_str())?;
    }
    let step = Step::Manifest(name.to_owned());
    Err(session.invalid(&step, format!("more than {NESTING_MAX} indexes in one another")))
}

/// What `name` leads to: its descriptor, and the platforms that it is for.
pub(super) fn describe(session: &Session, name: &str) -> Outcome<(Descriptor, Vec<Platform>)> {
    let document = fetch(session, name)?;
    let step = || Step::Manifest(name.to_owned());
    let descriptor = Descriptor {
        media_type: document.media_type.clone(),
        digest: document.digest.clone(),
        size: document.bytes.len() as u64,
        urls: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        platform: None,
    };
    let platforms = if mt::is_index(&document.media_type) {
        let index: Index = serde_json::from_slice(&document.bytes)
            .map_err(|error| session.invalid(&step(), error.to_string()))?;
        index.manifests.into_iter().filter(is_image).filter_map(|entry| entry.platform).collect()
    } else {
        let config = config(session, &document)?;
        let platform = serde_json::from_slice(&config)
            .map_err(|error| session.invalid(&step(), error.to_string()))?;
        vec![platform]
    };
    Ok((descriptor, platforms))
}

/// The digest of what `name` means, without reading it where the registry tells.
pub(super) fn digest(session: &Session, name: &str) -> Outcome<Digest> {
    let step = Step::Manifest(name.to_owned());
    let url = session.url(&format!("manifests/{name}"));
    let mut call = Call::new(Method::HEAD, url, step.clone()).header("accept", accept());
    let answer = session.expect(&mut call, &[200])?;
    match header(&answer, DIGEST).map(str::parse) {
        Some(Ok(digest)) => Ok(digest),
        Some(Err(error)) => Err(session.invalid(&step, clean(&error.to_string()))),
        None => Ok(fetch(session, name)?.digest),
    }
}

fn fetch(session: &Session, name: &str) -> Outcome<Document> {
    let step = Step::Manifest(name.to_owned());
    let url = session.url(&format!("manifests/{name}"));
    let mut call = Call::get(url, step.clone()).header("accept", accept());
    let head = |answer: &Answer| {
        let text = |name| header(answer, name).map(str::to_owned);
        (text("content-type"), text(DIGEST))
    };
    let ((content_type, told), bytes) = session.fetch(&mut call, MANIFEST_MAX, head)?;
    let digest = Digest::sha256(&bytes);
    let named = name.parse::<Digest>().ok();
    // Another algorithm than ours can't be compared.
    let told = told.and_then(|told| told.parse::<Digest>().ok());
    for wanted in [named, told].into_iter().flatten() {
        if wanted != digest {
            return Err(session.invalid(&step, format!("it hashes to {digest}, not {wanted}")));
        }
    }
    let media_type =
        kind(content_type.as_deref(), &bytes).map_err(|text| session.invalid(&step, text))?;
    Ok(Document { bytes, media_type, digest })
}

/// What a document is; one that could be two things is refused.
fn kind(content_type: Option<&str>, bytes: &[u8]) -> Result<String, String> {
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
    let header = content_type.map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
    let says = |prefix: &str| header.as_deref().is_some_and(|t| t.starts_with(prefix));
    if shape.schema_version == Some(1) || says(SCHEMA1) {
        return Err("it is in the old format schema 1, which has no digests of its layers: \
                    push the image again with a current tool"
            .to_owned());
    }
    let (index, manifest) = (shape.manifests.is_some(), shape.layers.is_some());
    if index == manifest || (index && shape.config.is_some()) {
        return Err("it is neither an image nor an index of images".to_owned());
    }
    let fallback = if index { mt::OCI_INDEX } else { mt::OCI_MANIFEST };
    let own = shape.media_type.unwrap_or_else(|| {
        header.filter(|t| ACCEPTED.contains(&t.as_str())).unwrap_or_else(|| fallback.to_owned())
    });
    if !ACCEPTED.contains(&own.as_str()) || mt::is_index(&own) != index {
        return Err(format!("it calls itself {}", clean(&own)));
    }
    Ok(own)
}

fn entry(session: &Session, document: &Document, platform: &Platform) -> Outcome<Descriptor> {
    let step = Step::Manifest(document.digest.to_string());
    let index: Index = serde_json::from_slice(&document.bytes)
        .map_err(|error| session.invalid(&step, error.to_string()))?;
    match choose(&index.manifests, platform) {
        Choice::Found(descriptor) => Ok(descriptor.clone()),
        Choice::Others(others) => {
            let text = format!("no image for {}; it has {others}", show(platform));
            Err(session.error(&step, Failure::NotFound, text))
        }
    }
}

fn config(session: &Session, document: &Document) -> Outcome<Vec<u8>> {
    let step = Step::Manifest(document.digest.to_string());
    let manifest: Manifest = serde_json::from_slice(&document.bytes)
        .map_err(|error| session.invalid(&step, error.to_string()))?;
    let config = manifest.config;
    if !CONFIGS.contains(&config.media_type.as_str()) {
        let text = format!("it is no image to run but {}", clean(&config.media_type));
        return Err(session.invalid(&step, text));
    }
    for layer in &manifest.layers {
        let foreign = ["foreign", "nondistributable"];
        if !layer.urls.is_empty() || foreign.iter().any(|word| layer.media_type.contains(word)) {
            let text = format!("layer {} is kept elsewhere, which is refused", layer.digest);
            return Err(session.invalid(&step, text));
        }
    }
    if config.size > CONFIG_MAX {
        let text = format!("its config has {} bytes, more than {CONFIG_MAX}", config.size);
        return Err(session.invalid(&step, text));
    }
    read_config(session, &config)
}

fn read_config(session: &Session, config: &Descriptor) -> Outcome<Vec<u8>> {
    let step = Step::Blob(config.digest.clone());
    let sessions = std::slice::from_ref(session);
    let mut reader = BlobReader::open(sessions, &config.digest, config.size, 0)?;
    let mut bytes = Vec::new();
    if let Err(error) = std::io::Read::read_to_end(&mut reader, &mut bytes) {
        return Err(match crate::Error::from_read(error) {
            crate::Error::Registry(error) => error,
            other => session.unreachable(&step, other.to_string()),
        });
    }
    let actual = Digest::sha256(&bytes);
    if actual != config.digest {
        return Err(session.invalid(&step, format!("it hashes to {actual}")));
    }
    Ok(bytes)
}

fn accept() -> String {
    ACCEPTED.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_what_it_is_or_its_header_does() {
        let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        let docker = format!("{}; charset=utf-8", mt::DOCKER_MANIFEST);
        assert_eq!(kind(Some(&docker), manifest).unwrap(), mt::DOCKER_MANIFEST);
        assert_eq!(kind(Some("application/json"), manifest).unwrap(), mt::OCI_MANIFEST);
        assert_eq!(kind(None, index).unwrap(), mt::OCI_INDEX);
        assert!(kind(Some(mt::OCI_MANIFEST), index).is_err());
    }

    #[test]
    fn two_meanings_no_meaning_and_schema_1_are_refused() {
        for bad in [
            r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"config":{},"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"mediaType":"text/plain","layers":[]}"#,
            "[]",
            "",
        ] {
            assert!(kind(None, bad.as_bytes()).is_err(), "{bad}");
        }
        let old = kind(None, br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err();
        assert!(old.contains("schema 1"), "{old}");
    }
}
