//! Archives of images: what `save` writes and `load` reads.
//!
//! Two forms, often both in one tar: Docker's (`manifest.json` names configs and
//! layers) and the OCI image layout (`index.json` names manifests by digest).
//! [`Archive::read`] takes either from a stream, its files in any order; small files
//! stay in memory, the others go to a [`Spool`] at once. [`ArchiveSink`] writes both.

mod docker;
mod files;
mod layout;
mod write;

use std::io::{self, Read};

use capsa_oci::{Descriptor, Digest, Platform};

use crate::{Error, Image, Limits, Result, Source};
pub use docker::{descriptor, layer_type, manifest};
use files::Files;
pub use write::ArchiveSink;

/// Keeps bytes whose meaning is not yet known, by digest.
pub trait Spool: Sync {
    /// The length of these bytes, when it has them.
    ///
    /// # Errors
    /// When it can't tell.
    fn size(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Keeps the stream; its digest and length.
    ///
    /// # Errors
    /// The stream breaks, or there is no room.
    fn put(&self, content: &mut dyn Read) -> Result<(Digest, u64)>;

    /// The bytes of this digest.
    ///
    /// # Errors
    /// When they are not there.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>>;
}

/// An archive that was read.
pub struct Archive<'a> {
    spool: &'a dyn Spool,
    images: Vec<Image>,
}

impl<'a> Archive<'a> {
    /// Reads a tar stream, compressed or not, to its end. Of an image for several
    /// platforms the one for `platform` is taken.
    ///
    /// # Errors
    /// It is no archive of images, contradicts itself, or the spool fails.
    pub fn read(
        stream: impl Read + Send,
        spool: &'a dyn Spool,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self> {
        let files = Files::read(stream, spool, limits)?;
        let mut images = layout::images(&files, platform)?;
        for image in docker::images(&files)? {
            match images.iter_mut().find(|known| known.id == image.id) {
                Some(known) => add_names(known, image),
                None => images.push(image),
            }
        }
        if images.is_empty() {
            let text = "it holds no images (neither manifest.json nor index.json)";
            return Err(Error::Archive(text.to_owned()));
        }
        refuse_two_meanings(&images)?;
        Ok(Self { spool, images })
    }
}

impl Source for Archive<'_> {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn open(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut content = self.spool.open(&blob.digest)?;
        let skipped = io::copy(&mut content.by_ref().take(offset), &mut io::sink());
        if skipped.map_err(Error::Read)? < offset {
            return Err(Error::Missing(format!("byte {offset} of blob {}", blob.digest)));
        }
        Ok(content)
    }
}

/// One image found twice has the names of both.
fn add_names(known: &mut Image, other: Image) {
    for name in other.names {
        if !known.names.contains(&name) {
            known.names.push(name);
        }
    }
}

/// Two lists in one archive could show two engines two images under one name.
fn refuse_two_meanings(images: &[Image]) -> Result<()> {
    for (i, image) in images.iter().enumerate() {
        for other in &images[i + 1..] {
            if let Some(name) = image.names.iter().find(|name| other.names.contains(name)) {
                let text = format!("{name} names both {} and {}", image.id, other.id);
                return Err(Error::Archive(text));
            }
        }
    }
    Ok(())
}
