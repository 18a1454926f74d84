//! Writing an archive that both Docker and OCI tools read, blobs once each.
//!
//! The same images give the same bytes: no times, and documents as they were stored.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Mutex;

use capsa_oci::{Descriptor, Digest, Index, media_type};
use serde::Serialize;

use super::docker::descriptor;
use crate::tar::{Entry, Kind, Writer};
use crate::{Blob, Error, Image, Layer, Result, Sink};

/// Takes images into a tar stream; [`ArchiveSink::finish`] completes it.
pub struct ArchiveSink<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    writer: Writer<W>,
    written: BTreeMap<Digest, u64>,
    images: Vec<Image>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl<W: Write + Send> ArchiveSink<W> {
    /// Begins an archive on `out`.
    ///
    /// # Errors
    /// `out` can't be written.
    pub fn new(out: W) -> Result<Self> {
        let mut writer = Writer::new(out);
        for dir in ["blobs", "blobs/sha256"] {
            writer.bare(&Entry::new(dir, Kind::Dir, 0o755))?;
        }
        let state = State { writer, written: BTreeMap::new(), images: Vec::new() };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Writes the documents and the end mark; returns the inner writer, flushed.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(self) -> Result<W> {
        let State { mut writer, written, images } =
            self.state.into_inner().map_err(|_| poisoned())?;
        let mut documents = BTreeMap::new();
        for image in &images {
            documents.insert(blob_name(&image.id), image.config.clone());
            documents.insert(blob_name(&image.manifest_digest), image.manifest.clone());
        }
        documents.retain(|name, _| !written.keys().any(|digest| blob_name(digest) == *name));
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: images.iter().flat_map(named).collect(),
            annotations: BTreeMap::new(),
        };
        documents.insert("index.json".to_owned(), json("index.json", &index)?);
        let list: Vec<Listed> = images.iter().map(listed).collect();
        documents.insert("manifest.json".to_owned(), json("manifest.json", &list)?);
        documents.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        for (name, bytes) in documents {
            let mut entry = Entry::new(name, Kind::File, 0o644);
            entry.size = bytes.len() as u64;
            writer.entry(&entry, &mut &bytes[..])?;
        }
        writer.finish()
    }
}

impl<W: Write + Send> Sink for ArchiveSink<W> {
    fn lanes(&self) -> usize {
        1
    }

    fn has_layer(&self, layer: &Layer) -> Result<bool> {
        let state = self.state.lock().map_err(|_| poisoned())?;
        Ok(state.written.contains_key(&layer.blob.digest))
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> Result<()> {
        let mut blob = blob.open(0)?;
        let mut state = self.state.lock().map_err(|_| poisoned())?;
        let mut entry = Entry::new(blob_name(&layer.blob.digest), Kind::File, 0o644);
        entry.size = layer.blob.size;
        let mut hashed = Hashed { inner: &mut blob, hasher: capsa_oci::Hasher::new() };
        state.writer.entry(&entry, &mut hashed)?;
        let (expected, actual) = (layer.blob.digest.clone(), hashed.hasher.finish());
        if actual != expected {
            return Err(Error::Digest { what: "layer".to_owned(), expected, actual });
        }
        state.written.insert(expected, layer.blob.size);
        Ok(())
    }

    fn image(&self, image: &Image) -> Result<()> {
        let mut state = self.state.lock().map_err(|_| poisoned())?;
        state.images.push(image.clone());
        Ok(())
    }
}

struct Hashed<'a> {
    inner: &'a mut dyn Read,
    hasher: capsa_oci::Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// One descriptor for each name, or one without a name.
fn named(image: &Image) -> Vec<Descriptor> {
    let plain = descriptor(
        &image.manifest_type,
        image.manifest_digest.clone(),
        image.manifest.len() as u64,
    );
    if image.names.is_empty() {
        return vec![plain];
    }
    let with_name = |name: &capsa_oci::Reference| {
        let mut named = plain.clone();
        named.annotations.insert("io.containerd.image.name".to_owned(), name.canonical());
        if let Some(tag) = name.tag() {
            named
                .annotations
                .insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        }
        named
    };
    image.names.iter().map(with_name).collect()
}

fn listed(image: &Image) -> Listed {
    let tags: Vec<String> = image.names.iter().map(capsa_oci::Reference::familiar).collect();
    Listed {
        config: blob_name(&image.id),
        repo_tags: if tags.is_empty() { None } else { Some(tags) },
        layers: image.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect(),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json(name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::Json { file: name.to_owned(), source })
}

fn poisoned() -> Error {
    Error::Write(std::io::Error::other("an earlier write failed"))
}
