//! The OCI image layout in a tar: `index.json` names manifests and further indexes.
//!
//! Documents are read by the digest that names them, and refused when they could be
//! two things at once (a manifest that is also an index).

use capsa_oci::{Descriptor, Index, Manifest, Platform, Reference, media_type};
use serde_json::Value;

use super::files::{Files, parse};
use crate::platform::{is_image, rank, show};
use crate::{Error, Image, Result};

const INDEX: &str = "index.json";
const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const NESTING_MAX: u32 = 4;

/// The images of `index.json`, none when there is no such file.
pub(super) fn images(files: &Files<'_>, platform: &Platform) -> Result<Vec<Image>> {
    if !files.has(INDEX) {
        return Ok(Vec::new());
    }
    let bytes = files.bytes(INDEX)?;
    refuse_both(INDEX, &bytes)?;
    let index: Index = parse(INDEX, &bytes)?;
    let mut images: Vec<Image> = Vec::new();
    let mut others = Vec::new();
    for descriptor in &index.manifests {
        let Some(manifest) = choose(files, descriptor, platform, &mut others, 0)? else { continue };
        let image = image(files, &manifest, name(descriptor)?)?;
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => super::add_names(known, image),
            None => images.push(image),
        }
    }
    if images.is_empty() && !others.is_empty() {
        return Err(Error::Platform { wanted: show(platform), found: others.join(", ") });
    }
    Ok(images)
}

/// The manifest for `platform` at or below `descriptor`; those for others are noted.
fn choose(
    files: &Files<'_>,
    descriptor: &Descriptor,
    platform: &Platform,
    others: &mut Vec<String>,
    depth: u32,
) -> Result<Option<Descriptor>> {
    if !is_image(descriptor) {
        return Ok(None);
    }
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(match &descriptor.platform {
            Some(found) if rank(found, platform).is_none() => {
                others.push(show(found));
                None
            }
            _ => Some(descriptor.clone()),
        });
    }
    if depth >= NESTING_MAX {
        return Err(Error::Limit { what: "indexes in one another", limit: NESTING_MAX.into() });
    }
    let bytes = document(files, descriptor)?;
    let index: Index = parse(descriptor.digest.as_str(), &bytes)?;
    let mut best: Option<(Option<u32>, Descriptor)> = None;
    for below in &index.manifests {
        let Some(found) = choose(files, below, platform, others, depth + 1)? else { continue };
        let fit = found.platform.as_ref().and_then(|found| rank(found, platform));
        if best.as_ref().is_none_or(|(known, _)| fit > *known) {
            best = Some((fit, found));
        }
    }
    Ok(best.map(|(_, found)| found))
}

fn image(files: &Files<'_>, descriptor: &Descriptor, names: Vec<Reference>) -> Result<Image> {
    let bytes = document(files, descriptor)?;
    let manifest: Manifest = parse(descriptor.digest.as_str(), &bytes)?;
    let config = files.blob(&manifest.config.digest)?;
    for layer in &manifest.layers {
        let size = files.layer_blob(&layer.digest)?;
        if size != layer.size {
            let text = format!("layer {} has {size} bytes, not {}", layer.digest, layer.size);
            return Err(Error::Archive(text));
        }
    }
    Image::new(config, bytes, names)
}

/// A document by digest, which must be what its descriptor calls it.
fn document(files: &Files<'_>, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let bytes = files.blob(&descriptor.digest)?;
    let value = refuse_both(descriptor.digest.as_str(), &bytes)?;
    match value.get("mediaType").and_then(Value::as_str) {
        Some(own) if own != descriptor.media_type => {
            let (digest, called) = (&descriptor.digest, &descriptor.media_type);
            Err(Error::Archive(format!("{digest} calls itself {own}, its descriptor {called}")))
        }
        _ => Ok(bytes),
    }
}

fn refuse_both(name: &str, bytes: &[u8]) -> Result<Value> {
    let value: Value = parse(name, bytes)?;
    let has = |key: &str| value.get(key).is_some();
    if has("manifests") && (has("layers") || has("config")) {
        return Err(Error::Archive(format!("{name} is both an index and a manifest")));
    }
    Ok(value)
}

/// The full name, else a reference name that is more than a tag.
fn name(descriptor: &Descriptor) -> Result<Vec<Reference>> {
    let full = descriptor.annotations.get(IMAGE_NAME);
    let short = descriptor.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    let Some(name) = full.or(short) else { return Ok(Vec::new()) };
    match Reference::parse(name) {
        Ok(reference) => Ok(vec![reference.with_default_tag()]),
        Err(error) => Err(Error::Archive(format!("{INDEX}: {name:?}: {error}"))),
    }
}
