//! Images as registries take them: layers that are kept as plain tars, packed with gzip.
//!
//! Each is packed once. The packed blob belongs to the image's row from then on, so the
//! next push finds it, and it goes when the image goes; images that share a layer share
//! its packed blob. Packing depends on nothing but the bytes ([`capsa_image::gzip`]), so
//! the manifest made here is the same each time, and so is its digest.
//!
//! Invariant: a blob is recorded as packed only if the bytes that went into it were
//! hashed to the plain blob's digest on the way.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read};
use std::sync::PoisonError;

use capsa_image::archive::descriptor;
use capsa_image::{Error as ImageError, Image, gzip};
use capsa_oci::{Descriptor, Digest, Hasher, Manifest, media_type};
use capsa_store::{Durability, Lease};

use super::record::Record;
use super::{Images, no_such_image};
use crate::error::Class;
use crate::{Error, Result};

/// Packed blobs by the plain ones they were made of.
type Packed = BTreeMap<Digest, Descriptor>;

impl Images {
    /// The image `id` to push: its config as it is, and a manifest in which every layer
    /// is compressed. Layers that aren't yet are compressed now, on all processors.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt` when a blob is damaged, or the disk is full.
    pub fn packed(&self, id: &Digest) -> Result<Image> {
        let _moving = self.shared.moving.read().unwrap_or_else(PoisonError::into_inner);
        let image = self.image(id, Vec::new())?;
        let plain = |layer: &&capsa_image::Layer| packed_type(&layer.blob.media_type).is_some();
        let plain: Vec<_> = image.layers.iter().filter(plain).map(|l| l.blob.clone()).collect();
        if plain.is_empty() {
            return Ok(image);
        }
        let (known, mut lease) = (self.known_packed()?, self.store.lease());
        let mut packed = Packed::new();
        for blob in plain {
            if let Entry::Vacant(place) = packed.entry(blob.digest.clone()) {
                place.insert(self.packed_blob(&blob, known.get(&blob.digest), &mut lease)?);
            }
        }
        let image = with_packed(image, &packed)?;
        self.record_packed(id, packed)?;
        Ok(image)
    }

    /// What was packed before, for whichever image.
    fn known_packed(&self) -> Result<Packed> {
        let mut known = Packed::new();
        for (id, row) in self.store.images()? {
            known.extend(Record::of(&id, &row)?.packed);
        }
        Ok(known)
    }

    /// The packed form of a blob, held by the lease.
    fn packed_blob(
        &self,
        plain: &Descriptor,
        known: Option<&Descriptor>,
        lease: &mut Lease,
    ) -> Result<Descriptor> {
        let (digest, size) = match known {
            Some(known) if lease.hold_blob(&known.digest)? => (known.digest.clone(), known.size),
            _ => self.pack(plain)?,
        };
        lease.hold_blob(&digest)?;
        let media_type = packed_type(&plain.media_type).unwrap_or(media_type::OCI_LAYER_GZIP);
        let annotations = plain.annotations.clone();
        Ok(Descriptor { annotations, ..descriptor(media_type, digest, size) })
    }

    fn pack(&self, plain: &Descriptor) -> Result<(Digest, u64)> {
        let missing = || {
            let text = format!("blob {} is missing", plain.digest);
            Error::new(Class::Corrupt, text).with_hint("remove the image and load it again")
        };
        let file = self.store.blob(&plain.digest)?.ok_or_else(missing)?;
        let mut checked = Hashed { inner: file, hasher: Hasher::new() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let packed = gzip(&mut checked, self.store.ingest()?, threads);
        let packed = packed.map_err(|error| match error {
            ImageError::Write(error) => ImageError::end("write packed layer", error),
            error => error,
        })?;
        let actual = checked.hasher.finish();
        if actual != plain.digest {
            let text = format!("blob {} is damaged: its bytes hash to {actual}", plain.digest);
            return Err(
                Error::new(Class::Corrupt, text).with_hint("remove the image and load it again")
            );
        }
        Ok(packed.commit_as(None, Durability::Process)?)
    }

    fn record_packed(&self, id: &Digest, packed: Packed) -> Result<()> {
        let mut row = self.row(id)?;
        let mut record = Record::of(id, &row)?;
        let is_new = packed.iter().any(|(plain, made)| record.packed.get(plain) != Some(made));
        if !is_new {
            return Ok(());
        }
        record.packed.extend(packed);
        row.blobs.extend(record.packed.values().map(|blob| blob.digest.clone()));
        row.body = record.body()?;
        if self.store.change_image(id, &row)? { Ok(()) } else { Err(no_such_image(id.as_str())) }
    }
}

/// The image with packed blobs in the place of plain ones.
fn with_packed(image: Image, packed: &Packed) -> Result<Image> {
    let bad = |error: serde_json::Error| {
        Error::new(Class::Corrupt, format!("manifest of image {}: {error}", image.id))
    };
    let mut manifest: Manifest = serde_json::from_slice(&image.manifest).map_err(bad)?;
    for layer in &mut manifest.layers {
        if let Some(made) = packed.get(&layer.digest) {
            layer.clone_from(made);
        }
    }
    let manifest = serde_json::to_vec(&manifest).map_err(bad)?;
    Ok(Image::new(image.config, manifest, image.names)?)
}

/// What a plain layer of this type becomes; none of one that stays as it is.
fn packed_type(media_type: &str) -> Option<&'static str> {
    match media_type {
        media_type::OCI_LAYER => Some(media_type::OCI_LAYER_GZIP),
        media_type::DOCKER_LAYER => Some(media_type::DOCKER_LAYER_GZIP),
        _ => None,
    }
}

struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, archive, archive_of, assert_clean, config, large_layer};
    use super::*;

    fn blobs(world: &World) -> u64 {
        world.images.store.disk_usage().unwrap().blobs
    }

    #[test]
    fn layers_are_packed_once_and_unpack_to_the_same_image() {
        let world = World::new();
        let (lower, upper) = (large_layer(1), large_layer(2));
        world.load(&archive(&["app"], &[&lower, &upper, &lower])).unwrap();
        let (id, before) = (world.id("app"), blobs(&world));
        let saved = world.save(&["app"]);
        let image = world.images.packed(&id).unwrap();
        assert_eq!((image.id.clone(), blobs(&world)), (id.clone(), before + 2));
        for (layer, plain) in image.layers.iter().zip([&lower, &upper, &lower]) {
            assert_eq!(layer.blob.media_type, media_type::OCI_LAYER_GZIP);
            let bytes = world.images.store.read_blob(&layer.blob.digest, u64::MAX).unwrap();
            assert_eq!(bytes.len() as u64, layer.blob.size);
            let limits = capsa_image::Limits::default();
            let (_, mut back) = capsa_image::decompress(&bytes[..], &limits).unwrap();
            let mut unpacked = Vec::new();
            back.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == *plain);
        }
        // A second time nothing is made, and a sweep takes nothing of it.
        let time = |image: &Image| {
            let path = world.images.store.root().join("blobs/sha256");
            let path = path.join(image.layers[0].blob.digest.hex());
            std::fs::metadata(path).unwrap().modified().unwrap()
        };
        let first = time(&image);
        world.images.sweep().unwrap();
        let again = world.images.packed(&id).unwrap();
        assert_eq!((again.manifest, time(&image)), (image.manifest.clone(), first));
        assert_clean(&world);
        // What is saved stays as it came, and a second load forgets nothing.
        assert!(world.save(&["app"]) == saved);
        world.load(&saved).unwrap();
        assert_eq!(blobs(&world), before + 2);
        assert_eq!(world.images.packed(&id).unwrap().manifest, image.manifest);
        world.images.remove("app", true, true, &|_| false).unwrap();
        assert_eq!(blobs(&world), 0);
    }

    #[test]
    fn images_share_what_was_packed() {
        let world = World::new();
        let (base, own) = (large_layer(3), large_layer(4));
        world.load(&archive(&["one"], &[&base])).unwrap();
        world.load(&archive(&["two"], &[&base, &own])).unwrap();
        let one = world.images.packed(&world.id("one")).unwrap();
        let before = blobs(&world);
        let two = world.images.packed(&world.id("two")).unwrap();
        assert_eq!((&two.layers[0].blob, blobs(&world)), (&one.layers[0].blob, before + 1));
        world.images.remove("one", true, true, &|_| false).unwrap();
        assert_eq!(world.images.packed(&world.id("two")).unwrap().manifest, two.manifest);
    }

    #[test]
    fn what_is_compressed_already_is_pushed_as_it_came() {
        let world = World::new();
        let layer = large_layer(5);
        let zstd = capsa_image::compress(&mut &layer[..], capsa_image::Compression::Zstd, vec![]);
        world.load(&archive_of(&["app"], &config(&[&layer]), &[&zstd.unwrap()])).unwrap();
        let (id, before) = (world.id("app"), blobs(&world));
        let image = world.images.packed(&id).unwrap();
        assert_eq!(image.manifest, world.images.image(&id, Vec::new()).unwrap().manifest);
        assert_eq!(blobs(&world), before);
    }

    #[test]
    fn a_damaged_blob_is_told_and_never_recorded() {
        let world = World::new();
        let layer = large_layer(6);
        world.load(&archive(&["app"], &[&layer])).unwrap();
        let path = world.images.store.root().join("blobs/sha256");
        let path = path.join(Digest::sha256(&layer).hex());
        let mut bytes = layer.clone();
        bytes[700_000] ^= 1;
        std::fs::write(path, bytes).unwrap();
        let before = blobs(&world);
        let error = world.images.packed(&world.id("app")).unwrap_err();
        assert_eq!(error.class, Class::Corrupt, "{error}");
        assert_eq!(blobs(&world), before);
        let missing = world.images.packed(&Digest::sha256(b"none")).unwrap_err();
        assert_eq!(missing.class, Class::NotFound);
    }
}
