//! The tar format: what an entry is, a streaming reader and a writer.
//!
//! Own code, for two reasons: extended headers of a stranger must be bounded
//! before they are read into memory, and a reader over `BufRead` hands file
//! content on without copying it. Formats: POSIX.1-2001 (pax, ustar), GNU, v7;
//! where parsers differ (data behind a hard link, global headers) this one does
//! what Docker's does, so that nobody can show two engines two trees.

mod pax;
mod read;
mod write;

pub use read::{Reader, begins};
pub use write::Writer;

/// Bytes of a header and the unit of padding.
pub const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file; its content follows.
    File,
    /// Another name for an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub sec: i64,
    /// 0 to 999,999,999.
    pub nsec: u32,
}

/// One entry without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As in the archive, without trailing slashes.
    pub path: Vec<u8>,
    /// Target of a link, as in the archive.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Device numbers, major and minor.
    pub device: (u32, u32),
    /// Extended attributes by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where data lies (offset, length) when the file has holes.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// An empty entry of `kind` at `path`, owned by root, of 1970.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Bytes that fill the last block of `size` bytes.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
