//! The files of an archive by name, wherever their bytes are.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use capsa_oci::Digest;
use serde::de::DeserializeOwned;

use super::Spool;
use crate::tar::{Entry, Kind, Reader};
use crate::{Error, Limits, Result, decompress};

/// Up to this size a file may be kept in memory.
const SMALL: u64 = 256 * 1024;
/// Of all files together.
const MEMORY: u64 = 16 << 20;
/// Of a document that is parsed.
const DOCUMENT_MAX: u64 = 8 << 20;
const FILES_MAX: u64 = 100_000;
const LINKS_MAX: usize = 8;
const BLOBS: &str = "blobs/sha256/";

/// All files of one archive.
pub(super) struct Files<'a> {
    spool: &'a dyn Spool,
    files: HashMap<String, Stored>,
}

enum Stored {
    Memory(Vec<u8>),
    Spooled(Digest, u64),
    Link(String),
}

impl<'a> Files<'a> {
    /// Reads a tar stream, compressed or not.
    pub(super) fn read(
        stream: impl Read + Send,
        spool: &'a dyn Spool,
        limits: &Limits,
    ) -> Result<Self> {
        let (_, plain) = decompress(stream, limits)?;
        let limits = Limits { entries: FILES_MAX, ..limits.clone() };
        let mut reader = Reader::new(BufReader::with_capacity(256 * 1024, plain), limits);
        let (mut files, mut held) = (HashMap::new(), 0);
        while let Some(entry) = reader.next()? {
            let Some(name) = clean(&String::from_utf8_lossy(&entry.path), "") else { continue };
            let stored = match entry.kind {
                Kind::File => content(&name, &entry, reader.content(), spool, &mut held)?,
                Kind::Symlink => link(&entry, &name),
                Kind::HardLink => link(&entry, ""),
                _ => continue,
            };
            files.insert(name, stored);
        }
        reader.drain()?;
        Ok(Self { spool, files })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// A document's bytes.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        match self.find(name)? {
            Stored::Memory(bytes) => Ok(bytes.clone()),
            Stored::Spooled(_, size) if *size > DOCUMENT_MAX => {
                Err(Error::Limit { what: "bytes in a document", limit: DOCUMENT_MAX })
            }
            Stored::Spooled(digest, size) => {
                let mut bytes = Vec::new();
                let read = self.spool.open(digest)?.take(*size).read_to_end(&mut bytes);
                read.map_err(Error::from_read)?;
                Ok(bytes)
            }
            Stored::Link(_) => Err(Error::Missing(name.to_owned())),
        }
    }

    /// A document of the blob folder, checked against its digest.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let name = format!("{BLOBS}{}", digest.hex());
        let bytes = self.bytes(&name)?;
        check(&name, digest, &Digest::sha256(&bytes))?;
        Ok(bytes)
    }

    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        parse(name, &self.bytes(name)?)
    }

    /// Where a layer's bytes are in the spool: digest and size. One kept in memory
    /// moves there.
    pub(super) fn layer(&self, name: &str) -> Result<(Digest, u64)> {
        match self.find(name)? {
            Stored::Memory(bytes) => self.spool.put(&mut &bytes[..]),
            Stored::Spooled(digest, size) => Ok((digest.clone(), *size)),
            Stored::Link(_) => Err(Error::Missing(name.to_owned())),
        }
    }

    /// As [`Self::layer`], of the blob folder.
    pub(super) fn layer_blob(&self, digest: &Digest) -> Result<u64> {
        Ok(self.layer(&format!("{BLOBS}{}", digest.hex()))?.1)
    }

    /// The first bytes of something in the spool, for its magic.
    pub(super) fn start(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut start = Vec::new();
        let read = self.spool.open(digest)?.take(6).read_to_end(&mut start);
        read.map_err(Error::from_read)?;
        Ok(start)
    }

    fn find(&self, name: &str) -> Result<&Stored> {
        let mut at = name;
        for _ in 0..LINKS_MAX {
            match self.files.get(at) {
                Some(Stored::Link(target)) => at = target,
                Some(stored) => return Ok(stored),
                None => break,
            }
        }
        Err(Error::Missing(name.to_owned()))
    }
}

pub(super) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { file: name.to_owned(), source })
}

/// A name or link target as a key: no `.`, `..` or empty parts. `beside` is the file
/// whose folder a relative target starts from.
pub(super) fn clean(name: &str, beside: &str) -> Option<String> {
    let mut parts: Vec<&str> = beside.split('/').collect();
    parts.pop();
    if name.starts_with('/') {
        parts.clear();
    }
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

fn content(
    name: &str,
    entry: &Entry,
    mut content: impl Read,
    spool: &dyn Spool,
    held: &mut u64,
) -> Result<Stored> {
    if entry.size <= SMALL && *held + entry.size <= MEMORY {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(Error::from_read)?;
        *held += entry.size;
        return Ok(Stored::Memory(bytes));
    }
    let hex = name.strip_prefix(BLOBS);
    let promised = hex.and_then(|hex| Digest::from_hex(hex).ok());
    if let Some(digest) = &promised
        && let Some(size) = spool.size(digest)?
    {
        // Ours was checked when it came; these bytes are skipped.
        return Ok(Stored::Spooled(digest.clone(), size));
    }
    let (digest, size) = spool.put(&mut content)?;
    if let Some(promised) = &promised {
        check(name, promised, &digest)?;
    }
    Ok(Stored::Spooled(digest, size))
}

fn link(entry: &Entry, beside: &str) -> Stored {
    let target = String::from_utf8_lossy(&entry.link);
    Stored::Link(clean(&target, beside).unwrap_or_default())
}

fn check(what: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (expected.clone(), actual.clone());
    Err(Error::Digest { what: what.to_owned(), expected, actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_targets_are_names_in_the_archive() {
        for (target, beside, name) in [
            ("../b/layer.tar", "a/layer.tar", Some("b/layer.tar")),
            ("./manifest.json", "", Some("manifest.json")),
            ("/x", "a/b", Some("x")),
            ("../../x", "a/b", None),
            ("..", "", None),
            ("./", "", None),
        ] {
            assert_eq!(clean(target, beside).as_deref(), name, "{target}");
        }
    }
}
