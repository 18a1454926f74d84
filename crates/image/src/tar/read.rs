//! A streaming tar reader over `BufRead`, strict and bounded.
//!
//! [`Reader::next`] gives an entry, [`Reader::fill`] and [`Reader::consume`] its
//! content without copying. Content that is not taken is skipped. Everything read
//! into memory is bounded by [`Limits`].

use std::io::{self, BufRead, Read};

use super::pax::{self, Records};
use super::{BLOCK, Entry, Kind, padding};
use crate::{Error, Limits, Result};

/// A stream of entries.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    offset: u64,
    /// Stored bytes of the current entry that are still to come.
    remaining: u64,
    padding: u64,
    entries: u64,
    ended: bool,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Ahead {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Records>,
}

type Header = [u8; BLOCK];

impl<R: BufRead> Reader<R> {
    /// Reads entries from `inner`.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, offset: 0, remaining: 0, padding: 0, entries: 0, ended: false }
    }

    /// The next entry, `None` at the end-of-archive mark or the end of the stream.
    ///
    /// # Errors
    /// The stream breaks, violates the format, or passes a limit.
    #[expect(clippy::should_implement_trait, reason = "an iterator can't lend the content")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut ahead = Ahead::default();
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let (size, kind) = (self.number(&header[124..136], "size")?, header[156]);
            match kind {
                b'L' => ahead.long_path = Some(self.long_name(size)?),
                b'K' => ahead.long_link = Some(self.long_name(size)?),
                b'x' => ahead.pax = Some(self.records(size)?),
                // Global headers and volume labels describe no entry.
                b'g' | b'V' => self.begin_content(size),
                _ => return self.entry(&header, size, ahead).map(Some),
            }
        }
    }

    /// Some of the current entry's content as stored, empty at its end.
    ///
    /// # Errors
    /// The stream breaks or ends too early.
    pub fn fill(&mut self) -> Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        loop {
            match self.inner.fill_buf() {
                Ok([]) => return Err(self.truncated()),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from_read(error)),
            }
        }
        let buffer = self.inner.fill_buf().map_err(Error::from_read)?;
        let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..len])
    }

    /// Takes `n` bytes of what [`Self::fill`] showed.
    pub fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.offset += n as u64;
        self.remaining -= n as u64;
    }

    /// The current entry's content as a stream.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Reads to the end of the stream, past the end-of-archive mark, so that a
    /// digest over it is complete.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let n = match self.inner.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::from_read(error)),
            };
            self.inner.consume(n);
        }
    }

    fn entry(&mut self, header: &Header, stored: u64, ahead: Ahead) -> Result<Entry> {
        let mut pax = ahead.pax.unwrap_or_default();
        let mut entry = self.base_entry(header)?;
        let stored = pax.size.unwrap_or(stored);
        let has_content = entry.kind == Kind::File;
        self.begin_content(if has_content { stored } else { 0 });
        entry.size = self.remaining;
        entry.path = pax.path.take().or(ahead.long_path).unwrap_or(entry.path);
        entry.link = pax.link.take().or(ahead.long_link).unwrap_or(entry.link);
        entry.mtime = pax.mtime.unwrap_or(entry.mtime);
        entry.xattrs = std::mem::take(&mut pax.xattrs);
        if let Some(uid) = pax.uid {
            entry.uid = self.id(uid)?;
        }
        if let Some(gid) = pax.gid {
            entry.gid = self.id(gid)?;
        }
        self.sparse(header, &mut entry, pax)?;
        if entry.path.ends_with(b"/") && is_v7_file(header) {
            entry.kind = Kind::Dir;
        }
        while entry.path.len() > 1 && entry.path.ends_with(b"/") {
            entry.path.pop();
        }
        self.check(&entry)?;
        Ok(entry)
    }

    fn base_entry(&self, header: &Header) -> Result<Entry> {
        let kind = match header[156] {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                let what = format!("unknown entry type {:?}", char::from(other));
                return Err(self.format(what));
            }
        };
        let mut entry = Entry::new(self.path(header), kind, 0);
        entry.link = until_nul(&header[157..257]).to_vec();
        entry.mode = u32::try_from(self.number(&header[100..108], "mode")? & 0o7777).unwrap_or(0);
        entry.uid = self.id(self.number(&header[108..116], "uid")?)?;
        entry.gid = self.id(self.number(&header[116..124], "gid")?)?;
        entry.mtime.sec = self.signed(&header[136..148], "mtime")?;
        if matches!(kind, Kind::Char | Kind::Block) {
            entry.device = (
                self.id(self.number(&header[329..337], "device number")?)?,
                self.id(self.number(&header[337..345], "device number")?)?,
            );
        }
        Ok(entry)
    }

    fn path(&self, header: &Header) -> Vec<u8> {
        let name = until_nul(&header[..100]);
        // Only POSIX headers have a prefix; GNU keeps other things there.
        let prefix =
            if &header[257..263] == b"ustar\0" { until_nul(&header[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Old GNU sparse headers and all three pax forms become one map.
    fn sparse(&mut self, header: &Header, entry: &mut Entry, pax: Records) -> Result<()> {
        let sparse = pax.sparse;
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        let (map, real) = if header[156] == b'S' {
            (self.old_gnu_map(header)?, self.number(&header[483..495], "size")?)
        } else if sparse.in_data {
            (self.map_in_data()?, sparse.real_size.unwrap_or(0))
        } else if let Some(map) = sparse.map {
            (map, sparse.real_size.unwrap_or(0))
        } else {
            return Ok(());
        };
        let mut end = 0;
        for (offset, length) in &map {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real);
            end = next.ok_or_else(|| self.format("sparse map out of order".to_owned()))?;
        }
        if map.iter().map(|(_, length)| length).sum::<u64>() != self.remaining {
            return Err(self.format("sparse map does not match the size".to_owned()));
        }
        (entry.size, entry.sparse) = (real, Some(map));
        Ok(())
    }

    fn old_gnu_map(&mut self, header: &Header) -> Result<Vec<(u64, u64)>> {
        let mut map = self.sparse_pairs(&header[386..482])?;
        let mut more = header[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            map.extend(self.sparse_pairs(&block[..504])?);
            self.bound(map.len() as u64 * 24, self.limits.header, "bytes of sparse map")?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    fn sparse_pairs(&self, fields: &[u8]) -> Result<Vec<(u64, u64)>> {
        let used = fields.chunks_exact(24).take_while(|pair| pair[0] != 0);
        used.map(|pair| {
            Ok((self.number(&pair[..12], "offset")?, self.number(&pair[12..], "length")?))
        })
        .collect()
    }

    /// Version 1.0: the map is the first blocks of the content, a number a line.
    fn map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let (mut numbers, mut line) = (Vec::new(), Vec::new());
        let mut wanted = None;
        while wanted.is_none_or(|wanted| (numbers.len() as u64) < wanted) {
            if self.remaining < BLOCK as u64 {
                return Err(self.format("sparse map is cut off".to_owned()));
            }
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            self.remaining -= BLOCK as u64;
            for byte in block {
                if wanted.is_some_and(|wanted| numbers.len() as u64 >= wanted) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = pax::decimal(&line).filter(|_| line.len() <= 20);
                let number =
                    number.ok_or_else(|| self.format("sparse map is not numbers".to_owned()))?;
                line.clear();
                if wanted.is_none() {
                    self.bound(number, self.limits.header / 24, "pieces of a sparse file")?;
                    wanted = Some(number * 2);
                } else {
                    numbers.push(number);
                }
            }
        }
        Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn check(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        self.bound(self.entries, self.limits.entries, "entries")?;
        self.bound(entry.path.len() as u64, self.limits.path, "bytes in a path")?;
        self.bound(entry.link.len() as u64, self.limits.path, "bytes in a link target")?;
        if entry.path.is_empty() || entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(self.format("an entry has no valid name".to_owned()));
        }
        Ok(())
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        self.bound(size, self.limits.path + 1, "bytes in a path")?;
        let mut name = self.take_small(size)?;
        name.truncate(until_nul(&name).len());
        Ok(name)
    }

    fn records(&mut self, size: u64) -> Result<Records> {
        self.bound(size, self.limits.header, "bytes of extended header")?;
        let data = self.take_small(size)?;
        Records::parse(&data).map_err(|what| self.format(what))
    }

    fn take_small(&mut self, size: u64) -> Result<Vec<u8>> {
        self.begin_content(size);
        let mut data = Vec::new();
        self.content().read_to_end(&mut data).map_err(Error::from_read)?;
        Ok(data)
    }

    fn begin_content(&mut self, size: u64) {
        (self.remaining, self.padding) = (size, padding(size));
    }

    fn skip_content(&mut self) -> Result<()> {
        loop {
            let n = self.fill()?.len();
            if n > 0 {
                self.consume(n);
            } else if self.padding > 0 {
                self.remaining = std::mem::take(&mut self.padding);
            } else {
                return Ok(());
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        if self.ended || self.at_end()? {
            self.ended = true;
            return Ok(None);
        }
        let mut header = [0; BLOCK];
        self.exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        self.number(&header[148..156], "checksum")?;
        if !is_whole(&header) {
            return Err(self.format("header checksum mismatch".to_owned()));
        }
        Ok(Some(header))
    }

    fn at_end(&mut self) -> Result<bool> {
        self.inner.fill_buf().map(<[u8]>::is_empty).map_err(Error::from_read)
    }

    fn exact(&mut self, block: &mut Header) -> Result<()> {
        self.inner.read_exact(block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => Error::from_read(error),
        })?;
        self.offset += BLOCK as u64;
        Ok(())
    }

    fn id(&self, number: u64) -> Result<u32> {
        u32::try_from(number)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| self.format(format!("id {number} is out of range")))
    }

    fn number(&self, field: &[u8], what: &str) -> Result<u64> {
        let number = self.signed(field, what)?;
        u64::try_from(number).map_err(|_| self.format(format!("{what} is negative")))
    }

    /// Octal digits between blanks, or big-endian base 256 when the top bit is set.
    fn signed(&self, field: &[u8], what: &str) -> Result<i64> {
        parse_number(field).ok_or_else(|| self.format(format!("{what} is not a number")))
    }

    fn bound(&self, value: u64, limit: u64, what: &'static str) -> Result<()> {
        if value > limit { Err(Error::Limit { what, limit }) } else { Ok(()) }
    }

    fn truncated(&self) -> Error {
        self.format("the archive ends in the middle of an entry".to_owned())
    }

    fn format(&self, what: String) -> Error {
        Error::Format { offset: self.offset, what }
    }
}

/// Content of the current entry; see [`Reader::content`].
pub struct Content<'a, R>(&'a mut Reader<R>);

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.0.fill()?;
        let n = available.len().min(buffer.len());
        buffer[..n].copy_from_slice(&available[..n]);
        self.0.consume(n);
        Ok(n)
    }
}

/// Whether a stream that starts so is a tar: its first header has the right checksum.
pub fn begins(start: &[u8]) -> bool {
    start.first_chunk::<BLOCK>().is_some_and(|header| header[0] != 0 && is_whole(header))
}

/// Old writers summed signed bytes.
fn is_whole(header: &Header) -> bool {
    let (before, after) = (&header[..148], &header[156..]);
    let blanked = || before.iter().chain(after);
    let want = parse_number(&header[148..156]).filter(|want| *want >= 0);
    want == Some(blanked().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32)
        || want == Some(blanked().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(&[])
}

fn is_v7_file(header: &Header) -> bool {
    matches!(header[156], 0 | b'0')
}

fn parse_number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { i64::from(first | 0x80) - 256 } else { i64::from(first & 0x3f) };
        return rest
            .iter()
            .try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)));
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_is_known_by_its_first_header() {
        let mut writer = crate::tar::Writer::new(Vec::new());
        writer.bare(&Entry::new("a", Kind::File, 0o644)).unwrap();
        let mut tar = writer.finish().unwrap();
        assert!(begins(&tar) && begins(&tar[..BLOCK]) && !begins(&tar[..BLOCK - 1]));
        tar[0] = b'b';
        assert!(!begins(&tar) && !begins(&[0; 1024]) && !begins(b"{}"));
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   12 \0\0", Some(0o12)),
            (b"\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"12x", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(parse_number(field), value, "{}", field.escape_ascii());
        }
    }
}
