//! Images in and out: load, save, import.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::PoisonError;

use capsa_image::archive::{Archive, ArchiveSink, Spool, descriptor, layer_type, manifest};
use capsa_image::{Compression, Image, Layer, Source, copy};
use capsa_oci::{Digest, ExecConfig, History, ImageConfig, Platform, Reference, RootFs};

use super::ends::{Incoming, Outgoing};
use super::progress::{line, report};
use super::record::Record;
use super::{DOCUMENT_MAX, Images, apply_changes, no_such_image, now_text};
use crate::view::Progress;
use crate::{Error, Result};

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// Its names in the archive, familiar form.
    pub names: Vec<String>,
}

impl Images {
    /// Reads an archive of images. `progress` gets lines in Docker's words.
    ///
    /// # Errors
    /// The archive is no archive of images, or bad; images completed before stay.
    pub fn load(
        &self,
        archive: impl Read + Send,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Vec<Loaded>> {
        let loaded = {
            let _moving = self.shared.moving.read().unwrap_or_else(PoisonError::into_inner);
            self.load_held(archive, progress)
        };
        self.sweep()?;
        loaded
    }

    /// The images that these keys mean, for [`Self::write_archive`]: nothing is written
    /// before all are found. A name without a tag means all tags of that repository, an
    /// id means no name.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` when a document is damaged.
    pub fn plan_save(&self, keys: &[String]) -> Result<Vec<Image>> {
        let mut chosen: BTreeMap<usize, (Digest, Vec<Reference>)> = BTreeMap::new();
        for key in keys {
            for (id, name) in self.named(key)? {
                let known = chosen.values_mut().find(|(known, _)| *known == id);
                match known {
                    Some((_, names)) if name.as_ref().is_none_or(|name| names.contains(name)) => {}
                    Some((_, names)) => names.extend(name),
                    None => {
                        chosen.insert(chosen.len(), (id, name.into_iter().collect()));
                    }
                }
            }
        }
        chosen.into_values().map(|(id, names)| self.image(&id, names)).collect()
    }

    /// Writes an archive of these images that Docker and OCI tools read.
    ///
    /// # Errors
    /// A blob is gone or damaged, or `out` can't be written.
    pub fn write_archive(&self, images: Vec<Image>, out: impl Write + Send) -> Result<()> {
        let source = Outgoing { store: &self.store, images };
        let sink = ArchiveSink::new(out)?;
        copy(&source, &source.images()?, &sink, &|_, _| {})?;
        sink.finish().map(drop).map_err(Error::from)
    }

    /// Makes an image of one layer out of a file system's tar; its id.
    ///
    /// # Errors
    /// The tar is bad, or a change is no instruction.
    pub fn import(
        &self,
        tar: impl Read + Send,
        reference: Option<&Reference>,
        changes: &[String],
        message: &str,
    ) -> Result<Digest> {
        let mut config = ExecConfig::default();
        apply_changes(&mut config, changes)?;
        let id = {
            let _moving = self.shared.moving.read().unwrap_or_else(PoisonError::into_inner);
            self.import_held(tar, config, message)?
        };
        if let Some(reference) = reference {
            self.set_name(&id, reference)?;
        }
        Ok(id)
    }

    fn load_held(
        &self,
        archive: impl Read + Send,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Vec<Loaded>> {
        let store = Incoming::new(&self.store, &self.limits, &self.shared.arrivals)?;
        let archive = Archive::read(archive, &store, &Platform::host(), &self.limits)?;
        let on_progress = |layer: &Layer, done: u64| {
            report(progress, layer.diff_id.short(), "Loading layer", done, layer.blob.size);
        };
        let mut loaded = Vec::new();
        for image in archive.images()? {
            copy(&archive, std::slice::from_ref(&image), &store, &on_progress)?;
            for name in &image.names {
                if let Some(before) = self.set_name(&image.id, name)? {
                    progress(line(format!(
                        "The image {name} already exists, renaming the old one with ID {before} to empty string"
                    )));
                }
                progress(line(format!("Loaded image: {name}")));
            }
            if image.names.is_empty() {
                progress(line(format!("Loaded image ID: {}", image.id)));
            }
            let names = image.names.iter().map(Reference::familiar).collect();
            loaded.push(Loaded { id: image.id, names });
        }
        Ok(loaded)
    }

    fn import_held(&self, mut tar: impl Read, config: ExecConfig, message: &str) -> Result<Digest> {
        let store = Incoming::new(&self.store, &self.limits, &self.shared.arrivals)?;
        let (digest, size) = store.put(&mut tar)?;
        let (start, diff_id) = self.hash_plain(&store, &digest)?;
        let created = Some(now_text());
        let host = Platform::host();
        let step = History {
            created: created.clone(),
            comment: Some(message.to_owned()).filter(|text| !text.is_empty()),
            ..History::default()
        };
        let config = ImageConfig {
            created,
            architecture: host.architecture,
            os: host.os,
            config: Some(config),
            rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
            history: vec![step],
            ..ImageConfig::default()
        };
        let config = to_bytes(&config)?;
        let blob = descriptor(layer_type(&start), digest, size);
        let manifest = manifest(&config, vec![blob])?;
        let image = Image::new(config, manifest, Vec::new())?;
        let source = Outgoing { store: &self.store, images: Vec::new() };
        copy(&source, std::slice::from_ref(&image), &store, &|_, _| {})?;
        Ok(image.id)
    }

    fn hash_plain(&self, store: &Incoming, digest: &Digest) -> Result<(Vec<u8>, Digest)> {
        let mut start = Vec::new();
        Spool::open(store, digest)?.take(6).read_to_end(&mut start).map_err(unreadable)?;
        if Compression::of(&start) == Compression::None {
            return Ok((start, digest.clone()));
        }
        let (_, mut plain) = capsa_image::decompress(Spool::open(store, digest)?, &self.limits)?;
        let mut hasher = capsa_oci::Hasher::new();
        std::io::copy(&mut plain, &mut hasher).map_err(unreadable)?;
        Ok((start, hasher.finish()))
    }

    /// What a key of `save` means: images, each with the name it is saved under.
    fn named(&self, key: &str) -> Result<Vec<(Digest, Option<Reference>)>> {
        let id = self.resolve(key);
        let by_id = id.as_ref().is_ok_and(|id| Self::is_id(key, id));
        let name = Reference::parse(key).ok();
        match name {
            Some(name) if !by_id && name.tag().is_none() && name.digest().is_none() => {
                let mut found = Vec::new();
                for (tag, id) in self.store.tags()? {
                    let Ok(tag) = Reference::parse(&tag) else { continue };
                    if (tag.domain(), tag.path()) == (name.domain(), name.path()) {
                        found.push((id, Some(tag)));
                    }
                }
                if found.is_empty() { Err(no_such_image(&name.familiar())) } else { Ok(found) }
            }
            Some(name) if !by_id && name.digest().is_none() => Ok(vec![(id?, Some(name))]),
            _ => Ok(vec![(id?, None)]),
        }
    }

    /// An image's documents, as they came.
    pub(super) fn image(&self, id: &Digest, names: Vec<Reference>) -> Result<Image> {
        let row = self.row(id)?;
        let config = self.store.read_blob(&row.config, DOCUMENT_MAX)?;
        let manifest = match &row.manifest {
            Some(digest) => self.store.read_blob(digest, DOCUMENT_MAX)?,
            None => manifest(&config, Record::of(id, &row)?.layers)?,
        };
        Ok(Image::new(config, manifest, names)?)
    }
}

pub(super) fn to_bytes(config: &ImageConfig) -> Result<Vec<u8>> {
    serde_json::to_vec(config).map_err(|error| Error::invalid(format!("image config: {error}")))
}

fn unreadable(error: std::io::Error) -> Error {
    match error.downcast::<capsa_image::Error>() {
        Ok(own) => own.into(),
        Err(error) => Error::invalid(format!("reading the archive: {error}")),
    }
}
