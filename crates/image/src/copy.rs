//! Images from one place to another: pull, push, save and load are this one function
//! with different ends.
//!
//! An end is a [`Source`] (it has images and opens blobs) or a [`Sink`] (it takes
//! layers and then the image that names them). Archives and the engine's store are
//! both. Layers need no order, so a sink may take several at a time.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;

use capsa_oci::{Descriptor, Digest, ImageConfig, Manifest, Reference, chain_id};

use crate::{Error, Result};

/// Most layers of one image; overlayfs takes 500, Docker 128.
const LAYERS_MAX: usize = 256;

/// An image to move: its documents as bytes, checked against each other.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config: the image's id.
    pub id: Digest,
    /// The config's bytes, never written anew.
    pub config: Vec<u8>,
    /// The same, parsed.
    pub parsed: ImageConfig,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Media type of the manifest.
    pub manifest_type: String,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// With tags.
    pub names: Vec<Reference>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of this layer on those below it.
    pub chain_id: Digest,
    /// The tar as stored, compressed or not.
    pub blob: Descriptor,
}

/// Where images come from.
pub trait Source: Sync {
    /// The images it offers.
    ///
    /// # Errors
    /// When they can't be read or contradict themselves.
    fn images(&self) -> Result<Vec<Image>>;

    /// A blob's bytes as stored, from byte `offset` on; whoever reads them checks the
    /// digest.
    ///
    /// # Errors
    /// When it is not there, or shorter than `offset`.
    fn open(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>>;
}

/// Where images go.
pub trait Sink: Sync {
    /// How many layers it takes at a time.
    fn lanes(&self) -> usize;

    /// Whether the layer need not be sent.
    ///
    /// # Errors
    /// When the sink can't tell.
    fn has_layer(&self, layer: &Layer) -> Result<bool>;

    /// Takes a layer's blob and checks it: what it holds must be `diff_id`.
    ///
    /// # Errors
    /// The bytes are bad, or can't be kept.
    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> Result<()>;

    /// Takes an image whose layers were all taken.
    ///
    /// # Errors
    /// When it can't be kept.
    fn image(&self, image: &Image) -> Result<()>;
}

/// A layer's blob at its source. A sink that has the start of it opens it further on;
/// one whose own end breaks opens it again.
pub struct Blob<'a> {
    source: &'a dyn Source,
    layer: &'a Layer,
    on_progress: &'a OnProgress<'a>,
}

/// Told about a layer on its way: bytes of the blob so far. Its size is in its descriptor.
pub type OnProgress<'a> = dyn Fn(&Layer, u64) + Sync + 'a;

/// Moves `images` of `source` into `sink`, each layer once.
///
/// # Errors
/// The first failure of either end; images completed before stay.
pub fn copy(
    source: &dyn Source,
    images: &[Image],
    sink: &dyn Sink,
    on_progress: &OnProgress<'_>,
) -> Result<()> {
    let mut seen = HashSet::new();
    for image in images {
        let wanted: Vec<&Layer> = image
            .layers
            .iter()
            .filter(|layer| seen.insert((layer.chain_id.clone(), layer.blob.digest.clone())))
            .collect();
        copy_layers(source, &wanted, sink, on_progress)?;
        sink.image(image)?;
    }
    Ok(())
}

impl<'a> Blob<'a> {
    /// The bytes from `offset` on. Those before it count as moved.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open(&self, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let blob = self.source.open(&self.layer.blob, offset)?;
        let (layer, on_progress) = (self.layer, self.on_progress);
        Ok(Box::new(Watched { blob, layer, done: offset, on_progress }))
    }
}

impl Blob<'_> {
    /// Tells that all of it was taken, by a sink that had no need to open it.
    pub fn taken(&self) {
        (self.on_progress)(self.layer, self.layer.blob.size);
    }
}

impl Image {
    /// An image of these documents. The manifest's descriptors and the config's diff
    /// ids are matched up by position.
    ///
    /// # Errors
    /// A document does not parse, or they disagree.
    pub fn new(config: Vec<u8>, manifest: Vec<u8>, names: Vec<Reference>) -> Result<Self> {
        let id = Digest::sha256(&config);
        let manifest_digest = Digest::sha256(&manifest);
        let parsed: ImageConfig = parse(&id, &config)?;
        let document: Manifest = parse(&manifest_digest, &manifest)?;
        if document.config.digest != id {
            return Err(Error::Digest {
                what: "image config".to_owned(),
                expected: document.config.digest,
                actual: id,
            });
        }
        let layers = match_up(&id, &parsed, document.layers)?;
        let manifest_type =
            document.media_type.unwrap_or_else(|| capsa_oci::media_type::OCI_MANIFEST.to_owned());
        Ok(Self { id, config, parsed, manifest_digest, manifest, manifest_type, layers, names })
    }
}

fn match_up(id: &Digest, config: &ImageConfig, blobs: Vec<Descriptor>) -> Result<Vec<Layer>> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != blobs.len() {
        let (want, have) = (diff_ids.len(), blobs.len());
        let text = format!("image {id} has {want} diff ids but {have} layers");
        return Err(Error::Archive(text));
    }
    if blobs.len() > LAYERS_MAX {
        return Err(Error::Limit { what: "layers in an image", limit: LAYERS_MAX as u64 });
    }
    let chains = (1..=diff_ids.len()).filter_map(|n| chain_id(&diff_ids[..n]));
    let layers = diff_ids.iter().zip(chains).zip(blobs);
    Ok(layers
        .map(|((diff_id, chain_id), blob)| Layer { diff_id: diff_id.clone(), chain_id, blob })
        .collect())
}

fn parse<T: serde::de::DeserializeOwned>(digest: &Digest, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { file: digest.to_string(), source })
}

fn copy_layers(
    source: &dyn Source,
    layers: &[&Layer],
    sink: &dyn Sink,
    on_progress: &OnProgress<'_>,
) -> Result<()> {
    let queue = Mutex::new(layers.iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next().copied());
    let work = || -> Result<()> {
        while let Some(layer) = next() {
            copy_layer(source, layer, sink, on_progress).inspect_err(|_| drain(&queue))?;
        }
        Ok(())
    };
    let lanes = sink.lanes().min(layers.len());
    if lanes <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(work)).collect();
        let joined = lanes.into_iter().map(|lane| {
            lane.join().map_err(|_| Error::Read(io::Error::other("a layer's thread failed")))
        });
        joined.collect::<Result<Vec<_>>>()?.into_iter().collect()
    })
}

/// After a failure the other lanes take nothing new.
fn drain<'a>(queue: &Mutex<impl Iterator<Item = &'a &'a Layer>>) {
    if let Ok(mut queue) = queue.lock() {
        queue.by_ref().for_each(drop);
    }
}

fn copy_layer(
    source: &dyn Source,
    layer: &Layer,
    sink: &dyn Sink,
    on_progress: &OnProgress<'_>,
) -> Result<()> {
    if sink.has_layer(layer)? {
        return Ok(());
    }
    sink.layer(layer, &Blob { source, layer, on_progress })
}

struct Watched<'a> {
    blob: Box<dyn Read + Send + 'a>,
    layer: &'a Layer,
    done: u64,
    on_progress: &'a OnProgress<'a>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(buffer)?;
        if n > 0 {
            self.done += n as u64;
            (self.on_progress)(self.layer, self.done);
        }
        Ok(n)
    }
}
