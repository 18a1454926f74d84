//! Images and settings for the tests with registries, and a sink that keeps them.

use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use capsa_image::registry::{Access, Client, Credentials, RegistryConfig, Retries, Timeouts};
use capsa_image::{
    Blob, Compression, Error, Image, Layer, Limits, Result, Sink, Source, compress, copy,
    decompress,
};
use capsa_oci::{Descriptor, Digest, Reference, media_type};
use serde_json::json;

use super::fake::Fake;

/// Settings under which nothing takes long, unless it stalls.
pub fn quick() -> RegistryConfig {
    RegistryConfig {
        certs_d: "/nonexistent".into(),
        ca_bundle: None,
        proxy: None,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            commit: Duration::from_secs(10),
        },
        retries: Retries {
            attempts: 4,
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_secs(2),
        },
        ..RegistryConfig::default()
    }
}

pub fn client() -> Client {
    Client::new(quick())
}

pub fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

pub fn password(username: &str, password: &str) -> Access {
    let (username, password) = (username.to_owned(), password.to_owned());
    let credentials = Some(Credentials::Password { username, password });
    Access { credentials, ..Access::default() }
}

/// Layers that don't compress, so that their blobs are as long.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// An image's documents and blobs.
pub struct Sample {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
    pub plain: Vec<Vec<u8>>,
}

pub fn describe(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: Digest::sha256(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
    }
}

pub fn sample_for(architecture: &str, layers: &[Vec<u8>]) -> Sample {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let config = json!({"architecture": architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes();
    let pack = |layer: &Vec<u8>| compress(&mut &layer[..], Compression::Gzip, Vec::new()).unwrap();
    let blobs: Vec<_> = layers.iter().map(pack).collect();
    let listed: Vec<_> = blobs.iter().map(|b| describe(media_type::OCI_LAYER_GZIP, b)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config), "layers": listed})
    .to_string()
    .into_bytes();
    Sample { config, manifest, blobs, plain: layers.to_vec() }
}

pub fn sample(layers: &[Vec<u8>]) -> Sample {
    sample_for("amd64", layers)
}

impl Sample {
    /// Puts all of it into a registry; the manifest's digest.
    pub fn put(&self, fake: &Fake, repository: &str, tag: &str) -> Digest {
        for blob in self.blobs.iter().chain([&self.config]) {
            fake.put_blob(repository, blob);
        }
        fake.put_manifest(repository, tag, media_type::OCI_MANIFEST, &self.manifest)
    }

    pub fn image(&self, names: Vec<Reference>) -> Image {
        Image::new(self.config.clone(), self.manifest.clone(), names).unwrap()
    }
}

impl Source for Sample {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(vec![self.image(Vec::new())])
    }

    fn open(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        let found = self.blobs.iter().find(|bytes| Digest::sha256(bytes) == blob.digest);
        let found = found.ok_or_else(|| Error::Missing(blob.digest.to_string()))?;
        Ok(Box::new(&found[usize::try_from(offset).unwrap()..]))
    }
}

/// Keeps layers once their bytes were checked as a store would.
#[derive(Default)]
pub struct Shelf {
    pub layers: Mutex<Vec<(Digest, Vec<u8>)>>,
    pub images: Mutex<Vec<Image>>,
}

impl Sink for Shelf {
    fn lanes(&self) -> usize {
        3
    }

    fn has_layer(&self, _: &Layer) -> Result<bool> {
        Ok(false)
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> Result<()> {
        let (_, mut plain) = decompress(blob.open(0)?, &Limits::default())?;
        let mut bytes = Vec::new();
        plain.read_to_end(&mut bytes).map_err(|e| e.downcast().unwrap_or_else(Error::Read))?;
        let actual = Digest::sha256(&bytes);
        if actual != layer.diff_id {
            let expected = layer.diff_id.clone();
            return Err(Error::Digest { what: "layer".to_owned(), expected, actual });
        }
        self.layers.lock().unwrap().push((layer.diff_id.clone(), bytes));
        Ok(())
    }

    fn image(&self, image: &Image) -> Result<()> {
        self.images.lock().unwrap().push(image.clone());
        Ok(())
    }
}

/// Pulls everything into a shelf.
pub fn pull(client: &Client, reference: &Reference, access: &Access) -> Result<Shelf> {
    let source = client.pull(reference, access, None)?;
    let shelf = Shelf::default();
    copy(&source, &source.images()?, &shelf, &|_, _| {})?;
    Ok(shelf)
}

impl Shelf {
    /// The uncompressed layers, however they came.
    pub fn plain(&self) -> Vec<Vec<u8>> {
        self.layers.lock().unwrap().iter().map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// What a registry's error says.
pub fn registry_error(error: Error) -> Box<capsa_image::registry::RegistryError> {
    match error {
        Error::Registry(error) => error,
        other => panic!("not a registry's error: {other}"),
    }
}
