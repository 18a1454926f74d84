//! Bounds on what an archive may cost, checked while it streams.

/// Bounds on one layer or archive. The defaults fit any honest image.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of file content and of the uncompressed stream.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of one path or link target.
    pub path: u64,
    /// Components of one path.
    pub depth: u64,
    /// Bytes of one extended header, so of all extended attributes of an entry.
    pub header: u64,
    /// Uncompressed bytes for each compressed byte, once [`Self::ratio_from`] bytes came out.
    pub ratio: u64,
    /// See [`Self::ratio`].
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 40,
            entries: 10_000_000,
            path: 4096,
            depth: 512,
            header: 1 << 20,
            ratio: 400,
            ratio_from: 64 << 20,
        }
    }
}
