//! Reading ahead on a second thread: decompressing and hashing a layer takes as long
//! as making its files, so the two run side by side.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use capsa_oci::{Digest, Hasher};

use crate::{Applied, Error, Limits, Result, apply, decompress};

const CHUNK: usize = 256 * 1024;
/// Chunks on their way: 2 MiB.
const CHUNKS: usize = 8;

/// Unpacks a layer blob (compressed or not) into `root`, an empty directory, and checks
/// that the uncompressed bytes are `diff_id`.
///
/// # Errors
/// As [`apply`] and [`decompress`], or [`Error::Digest`]. What was unpacked until
/// then stays: the caller removes `root`.
pub fn unpack_layer(
    blob: impl Read + Send,
    diff_id: &Digest,
    root: &capsa_sys::root::RootDir,
    limits: &Limits,
) -> Result<Applied> {
    let (applied, actual) = unpack_hashed(blob, root, limits)?;
    if actual == *diff_id {
        return Ok(applied);
    }
    Err(Error::Digest { what: "layer".to_owned(), expected: diff_id.clone(), actual })
}

/// [`unpack_layer`] of a blob whose diff id is not known yet: the second value.
///
/// # Errors
/// As [`apply`] and [`decompress`].
pub fn unpack_hashed(
    blob: impl Read + Send,
    root: &capsa_sys::root::RootDir,
    limits: &Limits,
) -> Result<(Applied, Digest)> {
    std::thread::scope(|scope| {
        let (_, plain) = decompress(blob, limits)?;
        let (ahead, hashing) = ahead(scope, plain);
        let applied = apply(ahead, root, limits)?;
        let actual = hashing.join().map_err(|_| Error::Read(io::Error::other("hashing failed")))?;
        Ok((applied, actual))
    })
}

type Chunk = io::Result<Vec<u8>>;

/// The reader's bytes, read and hashed on another thread. Dropping it stops that thread.
struct Ahead {
    chunks: Receiver<Chunk>,
    empties: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

fn ahead<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    reader: impl Read + Send + 'scope,
) -> (Ahead, std::thread::ScopedJoinHandle<'scope, Digest>) {
    let (sender, chunks) = sync_channel(CHUNKS);
    let (empties, emptied) = channel();
    let thread = scope.spawn(move || pump(reader, &sender, &emptied));
    (Ahead { chunks, empties, chunk: Vec::new(), at: 0 }, thread)
}

fn pump(mut reader: impl Read, full: &SyncSender<Chunk>, empty: &Receiver<Vec<u8>>) -> Digest {
    let mut hasher = Hasher::new();
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.clear();
        let read = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let last = chunk.is_empty() || read.is_err();
        hasher.update(&chunk);
        if (!chunk.is_empty() && full.send(Ok(chunk)).is_err()) || last {
            if let Err(error) = read {
                // The receiver may be gone; then nobody waits for it.
                let _ = full.send(Err(error));
            }
            return hasher.finish();
        }
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            // A closed channel is the end of the stream.
            if let Ok(next) = self.chunks.recv() {
                let old = std::mem::replace(&mut self.chunk, next?);
                let _ = self.empties.send(old);
                self.at = 0;
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let n = chunk.len().min(buffer.len());
        buffer[..n].copy_from_slice(&chunk[..n]);
        self.consume(n);
        Ok(n)
    }
}
