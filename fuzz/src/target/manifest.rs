//! An image's documents: a config and a manifest become an image only when they agree,
//! and an index leads to one of the images it lists.

use anyhow::{Context as _, ensure};
use capsa_image::archive::Archive;
use capsa_image::{Image, Limits, Source};
use capsa_oci::{Digest, Index, Platform, media_type as mt};

use super::shelf::Shelf;
use super::{Target, images};
use crate::random::Random;
use crate::tape::{self, Piece};
use crate::text;

pub(crate) struct Manifest;

impl Target for Manifest {
    fn name(&self) -> &'static str {
        "manifest"
    }

    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool> {
        if random.once_in(2) { pair(random) } else { choice(random) }
    }
}

/// A config and a manifest.
fn pair(random: &mut Random) -> anyhow::Result<bool> {
    let (config, manifest) = documents(random);
    let id = Digest::sha256(&config);
    let Ok(image) = Image::new(config.clone(), manifest.clone(), Vec::new()) else {
        return Ok(false);
    };
    ensure!(image.id == id && image.config == config && image.manifest == manifest, "other bytes");
    ensure!(image.layers.len() == image.parsed.rootfs.diff_ids.len(), "layers without diff ids");
    let written = serde_json::to_vec(&image.parsed)?;
    let again = serde_json::from_slice(&written).context("the config doesn't parse again")?;
    ensure!(image.parsed == again, "the config changes when it is written");
    let parsed: capsa_oci::Manifest = serde_json::from_slice(&manifest)?;
    let again = serde_json::from_slice(&serde_json::to_vec(&parsed)?)?;
    ensure!(parsed == again, "the manifest changes when it is written");
    Ok(true)
}

fn documents(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let layers: Vec<Vec<u8>> = (0..random.below(4)).map(|_| vec![random.byte()]).collect();
    let config = images::config(&layers);
    let config = if random.once_in(3) {
        config.to_string().into_bytes()
    } else {
        text::document(random, config)
    };
    let manifest = images::manifest(random, &config, &layers);
    (config, text::document(random, manifest))
}

/// An index, sometimes of an index, in a layout.
fn choice(random: &mut Random) -> anyhow::Result<bool> {
    let mut blobs = Vec::new();
    let mut listed = Vec::new();
    for number in 0..1 + random.below(3) {
        let layers = [vec![b'l', number.to_le_bytes()[0]]];
        let config = images::config(&layers).to_string().into_bytes();
        let manifest = images::manifest(random, &config, &layers);
        let manifest = if random.once_in(3) {
            text::document(random, manifest)
        } else {
            manifest.to_string().into_bytes()
        };
        listed.push((*random.pick(&[mt::OCI_MANIFEST, mt::DOCKER_MANIFEST]), manifest.clone()));
        blobs.extend(layers.into_iter().chain([config, manifest]));
    }
    for _ in 0..random.below(7) {
        let inner = images::index(random, &listed);
        let inner = if random.once_in(3) {
            text::document(random, inner)
        } else {
            inner.to_string().into_bytes()
        };
        blobs.push(inner.clone());
        if random.once_in(2) {
            listed.clear();
        }
        listed.push((mt::OCI_INDEX, inner));
    }
    let top = images::index(random, &listed);
    let top = text::document(random, top);
    if let Ok(index) = serde_json::from_slice::<Index>(&top) {
        let again: Index = serde_json::from_slice(&serde_json::to_vec(&index)?)?;
        ensure!(index == again, "the index changes when it is written");
    }
    read(random, &top, &blobs)
}

fn read(random: &mut Random, top: &[u8], blobs: &[Vec<u8>]) -> anyhow::Result<bool> {
    let name = |blob: &Vec<u8>| format!("blobs/sha256/{}", Digest::sha256(blob).hex());
    let mut pieces: Vec<Piece> =
        blobs.iter().map(|blob| Piece::new(b'0', name(blob).as_bytes(), blob)).collect();
    if random.once_in(4) {
        // Not what its name says any more.
        let at = random.below(blobs.len());
        let mut other = blobs[at].clone();
        if random.once_in(2) {
            other.push(b' '); // The same document.
        } else {
            text::bend(random, &mut other);
        }
        pieces[at] = Piece::new(b'0', name(&blobs[at]).as_bytes(), &other);
    }
    pieces.push(Piece::new(b'0', b"index.json", top));
    let (shelf, stream) = (Shelf::default(), tape::write(&pieces));
    let architecture = (*random.pick(&["amd64", "arm64", "arm"])).to_owned();
    let platform = Platform { architecture, os: "linux".to_owned(), ..Platform::default() };
    let Ok(archive) = Archive::read(&stream[..], &shelf, &platform, &Limits::default()) else {
        return Ok(false);
    };
    for image in archive.images()? {
        ensure!(blobs.contains(&image.manifest), "an image that nobody listed");
        ensure!(blobs.contains(&image.config), "a config that is no blob");
    }
    Ok(true)
}
