//! Compression by magic bytes: gzip (all members), zstd, or none.
//!
//! xz and bzip2 are recognised only to be refused by name: the engine runs no
//! helper programs. What comes out is bounded by [`Limits`] while it streams.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Limits, Result};

const BUFFER: usize = 128 * 1024;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Recognised and refused.
    Xz,
    /// Recognised and refused.
    Bzip2,
}

/// The uncompressed bytes of `reader`, and what they were compressed with.
///
/// # Errors
/// When the start cannot be read, or is xz or bzip2. Later errors, limits
/// included, come out of the reader as `io::Error`s.
pub fn decompress<'a>(
    reader: impl Read + Send + 'a,
    limits: &Limits,
) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: reader, taken: Arc::clone(&taken) };
    let mut buffered = BufReader::with_capacity(BUFFER, counted);
    let (kind, start) = detect(&mut buffered)?;
    let whole = io::Cursor::new(start).chain(buffered);
    let plain: Box<dyn Read + Send + 'a> = match kind {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(whole);
            Box::new(decoder.map_err(Error::Read)?)
        }
        refused => return Err(Error::Compression(refused)),
    };
    let guarded = Guarded { inner: plain, taken, given: 0, limits: limits.clone() };
    Ok((kind, Box::new(guarded)))
}

/// Writes `reader` to `writer` compressed; returns the writer.
///
/// # Errors
/// Reading or writing failed, or `kind` is xz or bzip2.
pub fn compress<W: Write>(reader: &mut dyn Read, kind: Compression, writer: W) -> Result<W> {
    match kind {
        Compression::None => {
            let mut writer = writer;
            copy(reader, &mut writer)?;
            Ok(writer)
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::default());
            copy(reader, &mut encoder)?;
            encoder.finish().map_err(Error::Write)
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(writer, 0).map_err(Error::Write)?;
            copy(reader, &mut encoder)?;
            encoder.finish().map_err(Error::Write)
        }
        refused => Err(Error::Compression(refused)),
    }
}

impl Compression {
    /// What the first bytes of a stream say.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

/// Moves all bytes and tells reading errors from writing ones.
pub(crate) fn copy(reader: &mut dyn Read, writer: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::from_read(error)),
        };
        writer.write_all(&buffer[..n]).map_err(Error::Write)?;
        total += n as u64;
    }
}

/// The start of a short first read is taken out, so that the magic is always whole.
fn detect(reader: &mut impl BufRead) -> Result<(Compression, Vec<u8>)> {
    let mut start = Vec::with_capacity(6);
    reader.take(6).read_to_end(&mut start).map_err(Error::from_read)?;
    Ok((Compression::of(&start), start))
}

struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

struct Guarded<R> {
    inner: R,
    taken: Arc<AtomicU64>,
    given: u64,
    limits: Limits,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.given += n as u64;
        if self.given > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(Error::Limit { what: "uncompressed bytes", limit }.into());
        }
        let taken = self.taken.load(Ordering::Relaxed).max(1);
        if self.given > self.limits.ratio_from && self.given / taken > self.limits.ratio {
            let limit = self.limits.ratio;
            return Err(Error::Limit { what: "bytes out of each compressed byte", limit }.into());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(bytes: &[u8]) -> (Compression, Vec<u8>) {
        let (kind, mut reader) = decompress(bytes, &Limits::default()).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        (kind, out)
    }

    #[test]
    fn each_compression_comes_back_and_gzip_members_are_joined() {
        for kind in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut packed = compress(&mut &b"hello "[..], kind, Vec::new()).unwrap();
            packed = compress(&mut &b"world"[..], kind, packed).unwrap();
            assert_eq!(unpack(&packed), (kind, b"hello world".to_vec()));
        }
        assert_eq!(unpack(b""), (Compression::None, Vec::new()));
        assert_eq!(unpack(b"abc"), (Compression::None, b"abc".to_vec()));
    }

    #[test]
    fn xz_and_bzip2_are_refused_by_name() {
        for (bytes, name) in [(&b"\xfd7zXZ\0rest"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
            let error = decompress(bytes, &Limits::default()).err().unwrap();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_ratio() {
        let limits = Limits { ratio: 100, ratio_from: 1 << 20, ..Limits::default() };
        let bomb = compress(&mut io::repeat(0).take(64 << 20), Compression::Zstd, Vec::new());
        let bomb = bomb.unwrap();
        let (_, mut reader) = decompress(&bomb[..], &limits).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("each compressed byte"), "{error}");
    }
}
