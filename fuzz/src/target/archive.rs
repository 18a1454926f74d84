//! Whole archives of images, plain and compressed: what is read can be written, and what
//! was written is read as the same images.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use capsa_image::archive::{Archive, ArchiveSink};
use capsa_image::{Compression, Limits, Source, compress, copy};
use capsa_oci::{Digest, Platform, media_type as mt};
use serde_json::json;

use super::shelf::Shelf;
use super::{Target, images};
use crate::random::Random;
use crate::tape::{self, Piece};
use crate::{mutate, text};

/// Names of an image by its id.
type Names = BTreeMap<Digest, Vec<String>>;

pub(crate) struct Archives;

impl Target for Archives {
    fn name(&self) -> &'static str {
        "archive"
    }

    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool> {
        let stream = stream(random)?;
        let shelf = Shelf::default();
        let Ok(archive) = read(&stream, &shelf) else { return Ok(false) };
        let (sink, images) = (ArchiveSink::new(Vec::new())?, archive.images()?);
        if copy(&archive, &images, &sink, &|_, _| {}).is_err() {
            // A layer was not what the manifest said.
            return Ok(false);
        }
        let written = sink.finish()?;
        let shelf = Shelf::default();
        let again = read(&written, &shelf).context("what was written can't be read")?;
        ensure!(names(&again)? == names(&archive)?, "other images than were written");
        Ok(true)
    }
}

fn read<'a>(stream: &[u8], shelf: &'a Shelf) -> capsa_image::Result<Archive<'a>> {
    let (architecture, os) = ("amd64".to_owned(), "linux".to_owned());
    let platform = Platform { architecture, os, ..Platform::default() };
    Archive::read(stream, shelf, &platform, &Limits::default())
}

fn names(archive: &Archive<'_>) -> anyhow::Result<Names> {
    let mut all = Names::new();
    for image in archive.images()? {
        let known = all.entry(image.id).or_default();
        known.extend(image.names.iter().map(ToString::to_string));
        known.sort();
        known.dedup();
    }
    Ok(all)
}

fn stream(random: &mut Random) -> anyhow::Result<Vec<u8>> {
    let mut pieces = Vec::new();
    for _ in 0..1 + random.below(2) {
        pieces.extend(image(random)?);
    }
    for _ in 0..random.below(3) {
        mutate::once(random, &mut pieces, "/nowhere");
    }
    let mut bytes = tape::write(&pieces);
    if random.once_in(20) {
        text::bend(random, &mut bytes);
    }
    let kind = *random.pick(&[Compression::None, Compression::Gzip, Compression::Zstd]);
    let mut packed = compress(&mut &bytes[..], kind, Vec::new())?;
    if random.once_in(8) {
        text::bend(random, &mut packed);
    }
    Ok(packed)
}

/// The files of an image in Docker's form, as a layout, or as both.
fn image(random: &mut Random) -> anyhow::Result<Vec<Piece>> {
    let (mut plain, mut stored) = (Vec::new(), Vec::new());
    for _ in 0..random.below(3) {
        let layer = layer(random);
        let kind = *random.pick(&[Compression::None, Compression::Gzip, Compression::Zstd]);
        stored.push(compress(&mut &layer[..], kind, Vec::new())?);
        plain.push(layer);
    }
    let config = maybe(random, images::config(&plain));
    let manifest = images::manifest(random, &config, &stored);
    let manifest = maybe(random, manifest);
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::sha256(bytes).hex());
    let mut pieces: Vec<Piece> = stored
        .iter()
        .chain([&config, &manifest])
        .map(|blob| Piece::new(b'0', name(blob).as_bytes(), blob))
        .collect();
    let form = random.below(3);
    if form != 0 {
        let layers: Vec<_> = stored.iter().map(|layer| name(layer)).collect();
        let tag = random.pick(&["x:1", "docker.io/a.b/c:1", "localhost/y", "me/app", "X"]);
        let list = json!([{"Config": name(&config), "RepoTags": [tag], "Layers": layers}]);
        pieces.push(Piece::new(b'0', b"manifest.json", &maybe(random, list)));
    }
    if form != 1 {
        let index = images::index(random, &[(mt::OCI_MANIFEST, manifest)]);
        pieces.push(Piece::new(b'0', b"index.json", &maybe(random, index)));
    }
    if random.once_in(5) {
        pieces.push(Piece::link(b'2', b"blobs/sha256/link", b"../../manifest.json"));
    }
    Ok(pieces)
}

fn maybe(random: &mut Random, value: serde_json::Value) -> Vec<u8> {
    if random.once_in(3) { text::document(random, value) } else { value.to_string().into_bytes() }
}

/// Now and then more than is kept in memory while an archive is read.
fn layer(random: &mut Random) -> Vec<u8> {
    let size = if random.once_in(100) { 300_000 } else { random.below(600) };
    tape::write(&[Piece::new(b'0', b"file", &vec![random.byte(); size])])
}
