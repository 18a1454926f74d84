//! Docker's archive: `manifest.json` lists configs, names and layer files.
//!
//! Layers may be compressed, and links to each other. There is no manifest in the
//! registry's sense; one is made here, so that every image has one.

use capsa_oci::{Descriptor, Digest, Manifest, Reference, media_type};
use serde::Deserialize;

use super::files::{Files, clean};
use crate::{Compression, Error, Image, Result};

const LIST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of `manifest.json`, none when there is no such file.
pub(super) fn images(files: &Files<'_>) -> Result<Vec<Image>> {
    if !files.has(LIST) {
        return Ok(Vec::new());
    }
    let list: Vec<Listed> = files.json(LIST)?;
    list.into_iter().map(|listed| image(files, listed)).collect()
}

fn image(files: &Files<'_>, listed: Listed) -> Result<Image> {
    let config_name = key(&listed.config)?;
    let config = files.bytes(&config_name)?;
    let layers = listed.layers.unwrap_or_default();
    let layers: Vec<Descriptor> =
        layers.iter().map(|name| layer(files, &key(name)?)).collect::<Result<_>>()?;
    let names = listed.repo_tags.unwrap_or_default();
    let names = names.iter().map(|name| reference(name)).collect::<Result<_>>()?;
    Image::new(config.clone(), manifest(&config, layers)?, names)
}

/// A manifest for a config and its layers, the same bytes each time.
///
/// # Errors
/// None in practice: it is plain data.
pub fn manifest(config: &[u8], layers: Vec<Descriptor>) -> Result<Vec<u8>> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: descriptor(media_type::OCI_CONFIG, Digest::sha256(config), config.len() as u64),
        layers,
        annotations: Default::default(),
    };
    serde_json::to_vec(&manifest).map_err(|source| Error::Json { file: LIST.to_owned(), source })
}

/// A descriptor without notes.
pub fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
    }
}

/// The media type of a layer that begins with `start`.
pub fn layer_type(start: &[u8]) -> &'static str {
    match Compression::of(start) {
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    }
}

fn layer(files: &Files<'_>, name: &str) -> Result<Descriptor> {
    let (digest, size) = files.layer(name)?;
    let media_type = layer_type(&files.start(&digest)?);
    Ok(descriptor(media_type, digest, size))
}

fn key(name: &str) -> Result<String> {
    clean(name, "").ok_or_else(|| Error::Missing(name.to_owned()))
}

fn reference(name: &str) -> Result<Reference> {
    match Reference::parse(name) {
        Ok(reference) => Ok(reference.with_default_tag()),
        Err(error) => Err(Error::Archive(format!("{LIST}: {name:?}: {error}"))),
    }
}
