//! What the store keeps about an image beside its documents: a versioned record.

use std::collections::BTreeMap;

use capsa_oci::{Descriptor, Digest};
use capsa_store::ImageRow;
use serde::{Deserialize, Serialize};

use crate::error::Class;
use crate::{Error, Result};

const VERSION: u32 = 1;

/// The body of an image's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// Media type of the manifest.
    pub(super) manifest_type: String,
    /// Lowest first: the blob that holds each layer, checked against its diff id.
    pub(super) layers: Vec<Descriptor>,
    /// When it came.
    pub(super) stored_ns: i64,
    /// The image it was made from, when it was made here.
    #[serde(default)]
    pub(super) parent: Option<Digest>,
    /// `name@digest` as fetched from registries, familiar form.
    #[serde(default)]
    pub(super) repo_digests: Vec<String>,
    /// Deleted by force while containers still need its layers.
    #[serde(default)]
    pub(super) hidden: bool,
    /// Layer blobs that are plain, and their packed forms for registries.
    #[serde(default)]
    pub(super) packed: BTreeMap<Digest, Descriptor>,
}

impl Record {
    pub(super) fn new(manifest_type: String, layers: Vec<Descriptor>) -> Self {
        Self {
            version: VERSION,
            manifest_type,
            layers,
            stored_ns: crate::clock::now_ns(),
            parent: None,
            repo_digests: Vec::new(),
            hidden: false,
            packed: BTreeMap::new(),
        }
    }

    pub(super) fn of(id: &Digest, row: &ImageRow) -> Result<Self> {
        let corrupt =
            |what: String| Error::new(Class::Corrupt, format!("record of image {id}: {what}"));
        let record: Self =
            serde_json::from_str(&row.body).map_err(|error| corrupt(error.to_string()))?;
        if record.version > VERSION {
            return Err(corrupt(format!("version {} is newer than {VERSION}", record.version)));
        }
        Ok(record)
    }

    pub(super) fn body(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(Class::Corrupt, format!("record of an image: {error}")))
    }
}
