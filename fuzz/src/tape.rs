//! A tar archive in pieces that may say anything: headers as bytes, checksums made right
//! at the end unless a piece wants a wrong one.

use std::ops::Range;

pub(crate) const BLOCK: usize = 512;
pub(crate) const NAME: Range<usize> = 0..100;
pub(crate) const MODE: Range<usize> = 100..108;
pub(crate) const UID: Range<usize> = 108..116;
pub(crate) const GID: Range<usize> = 116..124;
pub(crate) const SIZE: Range<usize> = 124..136;
pub(crate) const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
pub(crate) const KIND: usize = 156;
pub(crate) const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
pub(crate) const MAJOR: Range<usize> = 329..337;
pub(crate) const MINOR: Range<usize> = 337..345;
pub(crate) const PREFIX: Range<usize> = 345..500;
/// Old GNU sparse headers: four pairs, whether more follow, the real size.
pub(crate) const SPARSE: Range<usize> = 386..482;
pub(crate) const SPARSE_MORE: usize = 482;
pub(crate) const SPARSE_REAL: Range<usize> = 483..495;

/// One header with what follows it.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) header: [u8; BLOCK],
    pub(crate) data: Vec<u8>,
    /// The checksum is left as it is.
    pub(crate) unsound: bool,
}

impl Piece {
    pub(crate) fn new(kind: u8, name: &[u8], data: &[u8]) -> Self {
        let mut piece = Self { header: [0; BLOCK], data: data.to_vec(), unsound: false };
        piece.header[KIND] = kind;
        piece.put(MAGIC, b"ustar\x0000");
        piece.put(MODE, b"0000755");
        piece.octal(SIZE, data.len() as u64);
        if name.len() > NAME.len() {
            piece.put(PREFIX, &name[..name.len().min(PREFIX.len())]);
        }
        piece.put(NAME, name);
        piece
    }

    pub(crate) fn link(kind: u8, name: &[u8], target: &[u8]) -> Self {
        let mut piece = Self::new(kind, name, b"");
        piece.put(LINK, target);
        piece
    }

    /// Fills a field with as much of `bytes` as fits, and zeros.
    pub(crate) fn put(&mut self, field: Range<usize>, bytes: &[u8]) {
        let room = &mut self.header[field];
        room.fill(0);
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
    }

    pub(crate) fn octal(&mut self, field: Range<usize>, number: u64) {
        let width = field.len() - 1;
        self.put(field, format!("{number:0width$o}").as_bytes());
    }

    /// Big-endian with the top bit set, negative when `negative`.
    pub(crate) fn base256(&mut self, field: Range<usize>, number: u64, negative: bool) {
        let room = &mut self.header[field];
        room.fill(if negative { 0xff } else { 0 });
        let bytes = number.to_be_bytes();
        let n = bytes.len().min(room.len());
        let start = room.len() - n;
        room[start..].copy_from_slice(&bytes[bytes.len() - n..]);
        room[0] |= 0x80;
    }
}

/// The archive's bytes.
pub(crate) fn write(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut header = piece.header;
        if !piece.unsound {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(&piece.data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// An extended header with these records, their lengths right.
pub(crate) fn pax(records: &[(&[u8], &[u8])]) -> Piece {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        data.extend_from_slice(format!("{len} ").as_bytes());
        data.extend_from_slice(&[key, &b"="[..], value, b"\n"].concat());
    }
    Piece::new(b'x', b"PaxHeaders/x", &data)
}
