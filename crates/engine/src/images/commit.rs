//! An image out of a container: its changes as one more layer over its image.

use std::path::PathBuf;
use std::sync::PoisonError;

use capsa_image::archive::{Spool, descriptor, manifest};
use capsa_image::{Image, copy, diff};
use capsa_oci::{Descriptor, Digest, ExecConfig, History, ImageConfig, Reference, media_type};
use capsa_sys::root::RootDir;

use super::ends::{Incoming, Outgoing};
use super::moving::to_bytes;
use super::record::Record;
use super::{Images, apply_changes, now_text};
use crate::options::CommitOptions;
use crate::{Error, Result};

/// What commit takes from a container; the caller freezes it meanwhile if asked.
#[derive(Clone, Debug)]
pub struct CommitInput {
    /// Its image.
    pub parent: Digest,
    /// The upper directory of its overlay.
    pub upper: PathBuf,
    /// What it was to run, as defaults of the new image.
    pub config: ExecConfig,
    /// The command it ran, for the history.
    pub command: String,
}

/// An empty tar: two blocks of zeros.
const EMPTY_LAYER: usize = 1024;

impl Images {
    /// Makes an image of a container; its id.
    ///
    /// # Errors
    /// A change is no instruction, the name is none, or the upper can't be read.
    pub fn commit(&self, input: &CommitInput, options: &CommitOptions) -> Result<Digest> {
        let name = options.reference.as_deref().map(Reference::parse).transpose();
        let name = name.map_err(|error| Error::invalid(error.to_string()))?;
        let mut config = input.config.clone();
        apply_changes(&mut config, &options.changes)?;
        let id = {
            let _moving = self.shared.moving.read().unwrap_or_else(PoisonError::into_inner);
            self.commit_held(input, options, config)?
        };
        if let Some(name) = name {
            self.set_name(&id, &name)?;
        }
        Ok(id)
    }

    fn commit_held(
        &self,
        input: &CommitInput,
        options: &CommitOptions,
        exec: ExecConfig,
    ) -> Result<Digest> {
        let store = Incoming::new(&self.store, &self.limits, &self.shared.arrivals)?;
        let mut layers = Record::of(&input.parent, &self.row(&input.parent)?)?.layers;
        let added = self.pack_upper(&store, input)?;
        let mut config = ImageConfig::clone(&*self.config(&input.parent)?);
        config.history.push(step(input, options, added.is_none()));
        if let Some((layer, diff_id)) = added {
            layers.push(layer);
            config.rootfs.diff_ids.push(diff_id);
        }
        config.created = Some(now_text());
        config.author = Some(options.author.clone()).filter(|author| !author.is_empty());
        config.config = Some(exec);
        let config = to_bytes(&config)?;
        let manifest = manifest(&config, layers)?;
        let image = Image::new(config, manifest, Vec::new())?;
        let source = Outgoing { store: &self.store, images: Vec::new() };
        self.copy_layers(&source, &image, &store)?;
        store.put_image(&image, |record| record.parent = Some(input.parent.clone()))?;
        Ok(image.id)
    }

    /// The layer's blob and diff id, none when nothing changed. It is stored plain, so
    /// both are the same digest.
    fn pack_upper(
        &self,
        store: &Incoming,
        input: &CommitInput,
    ) -> Result<Option<(Descriptor, Digest)>> {
        let upper = RootDir::open(&input.upper)?;
        let (mut reader, writer) =
            std::io::pipe().map_err(|error| Error::kernel(format!("pipe: {error}")))?;
        let (packed, kept) = std::thread::scope(|scope| {
            let packing =
                scope.spawn(move || diff(&upper, std::io::BufWriter::new(writer)).map(drop));
            let kept = store.put(&mut reader);
            // A packer still writing learns that nobody reads.
            drop(reader);
            (packing.join(), kept)
        });
        let lost = |_| Error::kernel("packing the container's changes failed");
        let (digest, size) = match (packed.map_err(lost)?, kept) {
            (_, Err(error)) | (Err(error), Ok(_)) => return Err(error.into()),
            (Ok(()), Ok(kept)) => kept,
        };
        if size == EMPTY_LAYER as u64 {
            return Ok(None);
        }
        let layer = descriptor(media_type::OCI_LAYER, digest.clone(), size);
        Ok(Some((layer, digest)))
    }

    fn copy_layers(&self, source: &Outgoing<'_>, image: &Image, store: &Incoming) -> Result<()> {
        Ok(copy(source, std::slice::from_ref(image), store, &|_, _| {})?)
    }
}

fn step(input: &CommitInput, options: &CommitOptions, empty_layer: bool) -> History {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    History {
        created: Some(now_text()),
        created_by: some(&input.command),
        author: some(&options.author),
        comment: some(&options.message),
        empty_layer,
    }
}
