//! A tar writer: ustar headers, with a pax header only where ustar is too small.
//!
//! Equal entries give equal bytes. Times are whole seconds: a pax header for the
//! nanoseconds of each file would double the headers, and Docker's layers have
//! whole seconds too.

use std::io::{self, Read, Write};

use super::{BLOCK, Entry, Kind, padding, pax};
use crate::{Error, Result};

/// Writes entries one after another.
pub struct Writer<W> {
    inner: W,
}

const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// The largest number of an 11-digit octal field.
const SIZE_MAX: u64 = 0o777_7777_7777;
const ID_MAX: u64 = 0o777_7777;

impl<W: Write> Writer<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes an entry and exactly `entry.size` bytes of `content`: a file that
    /// shrank meanwhile is filled with zeros, one that grew is cut.
    ///
    /// # Errors
    /// Reading the content or writing failed.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let header = header(entry);
        let records = records(entry, &header);
        if !records.is_empty() {
            let mut about = Entry::new(pax_name(&entry.path), Kind::File, 0o644);
            about.size = records.len() as u64;
            self.put(&finish(&self::header(&about), b'x'))?;
            self.put(&records)?;
            self.zeros(padding(about.size))?;
        }
        self.put(&finish(&header, type_flag(entry.kind)))?;
        if entry.kind != Kind::File {
            return Ok(());
        }
        let mut bounded = content.take(entry.size);
        let copied = crate::compress::copy(&mut bounded, &mut self.inner)?;
        self.zeros(entry.size - copied + padding(entry.size))
    }

    /// Writes an entry without content, or an empty file.
    ///
    /// # Errors
    /// Writing failed.
    pub fn bare(&mut self, entry: &Entry) -> Result<()> {
        self.entry(entry, &mut io::empty())
    }

    /// Writes the end mark and returns the inner writer, flushed.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(mut self) -> Result<W> {
        self.zeros(2 * BLOCK as u64)?;
        self.inner.flush().map_err(Error::Write)?;
        Ok(self.inner)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(Error::Write)
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let n = count.min(BLOCK as u64);
            self.put(&ZEROS[..usize::try_from(n).unwrap_or(BLOCK)])?;
            count -= n;
        }
        Ok(())
    }
}

/// A header whose numbers and names are cut to what ustar can hold.
fn header(entry: &Entry) -> [u8; BLOCK] {
    let mut header = ZEROS;
    let path = archive_path(entry);
    match split_path(&path) {
        Some((prefix, name)) => {
            header[..name.len()].copy_from_slice(name);
            header[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => fill(&mut header[..100], &path),
    }
    fill(&mut header[157..257], &entry.link);
    octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut header[108..116], u64::from(entry.uid).min(ID_MAX));
    octal(&mut header[116..124], u64::from(entry.gid).min(ID_MAX));
    let size = if entry.kind == Kind::File { entry.size } else { 0 };
    octal(&mut header[124..136], size.min(SIZE_MAX));
    octal(&mut header[136..148], u64::try_from(entry.mtime.sec).unwrap_or(0).min(SIZE_MAX));
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], u64::from(entry.device.0).min(ID_MAX));
    octal(&mut header[337..345], u64::from(entry.device.1).min(ID_MAX));
    header
}

/// What the header cannot say.
fn records(entry: &Entry, header: &[u8; BLOCK]) -> Vec<u8> {
    let mut out = Vec::new();
    let path = archive_path(entry);
    let number = |out: &mut Vec<u8>, key: &str, value: i128| {
        pax::append(out, key.as_bytes(), value.to_string().as_bytes());
    };
    if u64::from(entry.gid) > ID_MAX {
        number(&mut out, "gid", entry.gid.into());
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        pax::append(&mut out, b"linkpath", &entry.link);
    }
    if entry.mtime.sec < 0 || entry.mtime.sec.unsigned_abs() > SIZE_MAX {
        number(&mut out, "mtime", entry.mtime.sec.into());
    }
    if split_path(&path).is_none() || !path.is_ascii() || header[0] == 0 {
        pax::append(&mut out, b"path", &path);
    }
    if entry.kind == Kind::File && entry.size > SIZE_MAX {
        number(&mut out, "size", entry.size.into());
    }
    if u64::from(entry.uid) > ID_MAX {
        number(&mut out, "uid", entry.uid.into());
    }
    for (name, value) in &entry.xattrs {
        pax::append_xattr(&mut out, name, value);
    }
    out
}

fn archive_path(entry: &Entry) -> Vec<u8> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Dir && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

/// Prefix and name: up to 100 bytes alone, or cut at a slash into 155 and 100.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    let start = path.len() - 101;
    let slash = start + path[start..].iter().position(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!name.is_empty() && !prefix.is_empty() && prefix.len() <= 155).then_some((prefix, name))
}

/// The extended header's own name, which nobody uses but old programs show.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let name = path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b"-");
    [b"PaxHeaders.0/", &name[..name.len().min(80)]].concat()
}

fn finish(header: &[u8; BLOCK], kind: u8) -> [u8; BLOCK] {
    let mut header = *header;
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    header
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

fn fill(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}

/// Octal digits up to the last byte, which stays NUL.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + u8::try_from(value & 7).unwrap_or(0);
        value >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Time};
    use super::*;
    use crate::Limits;

    fn round_trip(entry: &Entry, content: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry, &mut &content[..]).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..], Limits::default());
        let back = reader.next().unwrap().unwrap();
        let mut out = Vec::new();
        reader.content().read_to_end(&mut out).unwrap();
        assert!(reader.next().unwrap().is_none());
        (back, out)
    }

    #[test]
    fn what_ustar_cannot_hold_survives_in_a_pax_header() {
        let mut entry = Entry::new("d/".repeat(150) + "n\u{e9}", Kind::File, 0o4755);
        (entry.uid, entry.gid, entry.size) = (4_000_000_000, 3_000_000_000, 3);
        entry.mtime = Time { sec: -7, nsec: 0 };
        entry.xattrs = vec![(b"user.a".to_vec(), b"x=\n\0y".to_vec())];
        assert_eq!(round_trip(&entry, b"abc"), (entry, b"abc".to_vec()));
        let mut link = Entry::new("l", Kind::Symlink, 0o777);
        link.link = vec![b'x'; 300];
        assert_eq!(round_trip(&link, b"").0, link);
        let mut device = Entry::new("dev", Kind::Char, 0o600);
        device.device = (5, 1);
        assert_eq!(round_trip(&device, b"").0, device);
    }

    #[test]
    fn paths_of_every_length_survive() {
        for len in 1..400 {
            for (kind, size) in [(Kind::File, 1), (Kind::Dir, 0)] {
                let mut path = vec![b'a'; len];
                path.iter_mut().skip(7).step_by(13).for_each(|byte| *byte = b'/');
                if path.ends_with(b"/") {
                    path.push(b'z');
                }
                let mut entry = Entry::new(path, kind, 0o644);
                entry.size = size;
                assert_eq!(round_trip(&entry, b"x").0, entry, "{len}");
            }
        }
    }

    #[test]
    fn a_file_that_shrank_is_filled_up() {
        let mut entry = Entry::new("f", Kind::File, 0o644);
        entry.size = 600;
        let (_, content) = round_trip(&entry, b"abc");
        assert_eq!((content.len(), &content[..4]), (600, &b"abc\0"[..]));
    }
}
