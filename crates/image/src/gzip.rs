//! gzip on several cores, the same bytes whatever their number.
//!
//! The input is cut into blocks of a fixed size. Each is deflated by itself, beginning
//! with an empty window, up to a sync flush, which ends on a whole byte; the pieces one
//! after another are one deflate stream, and with the checksums combined one gzip member
//! (RFC 1951 and 1952). Beginning anew costs less than one part in a hundred.
//!
//! The header holds neither a time nor a name: equal input gives equal bytes, so a layer
//! packed again, here or elsewhere, is known by its digest.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::{Error, Result};

/// Of input. Part of the format in that another number gives other bytes.
const BLOCK: usize = 1 << 20;
/// Blocks in the hands of one thread.
const DEPTH: usize = 2;
/// More would wait for the one that reads and writes; memory is 2 MiB for each block.
const THREADS_MAX: usize = 8;
/// What `gzip` and other engines take.
const LEVEL: u32 = 6;
/// Deflate, no flags, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block with fixed codes.
const LAST: [u8; 2] = [3, 0];

/// Writes `reader` as one gzip member to `writer`, deflated by `threads` threads; returns
/// the writer. What is written doesn't depend on `threads`.
///
/// # Errors
/// Reading or writing failed.
pub fn gzip<W: Write>(reader: &mut dyn Read, mut writer: W, threads: usize) -> Result<W> {
    writer.write_all(&HEADER).map_err(Error::Write)?;
    let crc = std::thread::scope(|scope| {
        let lanes = (0..threads.clamp(1, THREADS_MAX)).map(|_| lane(scope)).collect();
        Blocks { lanes, begun: 0, done: 0, crc: Crc::new() }.run(reader, &mut writer)
    })?;
    writer.write_all(&LAST).map_err(Error::Write)?;
    let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    writer.write_all(&trailer).map_err(Error::Write)?;
    Ok(writer)
}

/// A thread that deflates, by what goes in and comes out.
struct Lane {
    plain: SyncSender<Piece>,
    deflated: Receiver<io::Result<Piece>>,
}

/// A block on its way; its buffers are used again.
#[derive(Default)]
struct Piece {
    plain: Vec<u8>,
    deflated: Vec<u8>,
    crc: Crc,
}

/// Blocks go round the lanes, and come back in the same order.
struct Blocks {
    lanes: Vec<Lane>,
    begun: usize,
    done: usize,
    crc: Crc,
}

impl Blocks {
    fn run(mut self, reader: &mut dyn Read, writer: &mut dyn Write) -> Result<Crc> {
        let mut spare = Piece::default();
        loop {
            spare.plain.clear();
            let read = reader.take(BLOCK as u64).read_to_end(&mut spare.plain);
            read.map_err(Error::from_read)?;
            if spare.plain.is_empty() {
                break;
            }
            let lane = &self.lanes[self.begun % self.lanes.len()];
            lane.plain.send(spare).map_err(|_| lost())?;
            self.begun += 1;
            let is_full = self.begun - self.done == self.lanes.len() * DEPTH;
            spare = if is_full { self.finish_one(writer)? } else { Piece::default() };
        }
        while self.done < self.begun {
            self.finish_one(writer)?;
        }
        Ok(self.crc)
    }

    /// Writes the oldest block.
    fn finish_one(&mut self, writer: &mut dyn Write) -> Result<Piece> {
        let lane = &self.lanes[self.done % self.lanes.len()];
        let piece = lane.deflated.recv().map_err(|_| lost())?.map_err(Error::Write)?;
        writer.write_all(&piece.deflated).map_err(Error::Write)?;
        self.crc.combine(&piece.crc);
        self.done += 1;
        Ok(piece)
    }
}

fn lane<'scope>(scope: &'scope Scope<'scope, '_>) -> Lane {
    let (plain, blocks) = sync_channel::<Piece>(DEPTH);
    let (done, deflated) = sync_channel(DEPTH);
    scope.spawn(move || {
        let mut deflate = Compress::new(Compression::new(LEVEL), false);
        for mut piece in blocks {
            let deflated = deflate_block(&mut deflate, &mut piece).map(|()| piece);
            if done.send(deflated).is_err() {
                return;
            }
        }
    });
    Lane { plain, deflated }
}

fn deflate_block(deflate: &mut Compress, piece: &mut Piece) -> io::Result<()> {
    deflate.reset();
    piece.crc.reset();
    piece.crc.update(&piece.plain);
    piece.deflated.clear();
    piece.deflated.reserve(BLOCK / 2);
    loop {
        let taken = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let rest = &piece.plain[taken..];
        let status = deflate.compress_vec(rest, &mut piece.deflated, FlushCompress::Sync)?;
        let taken = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        // With room left over the flush is complete.
        if taken == piece.plain.len() && piece.deflated.len() < piece.deflated.capacity() {
            return Ok(());
        }
        if status == Status::StreamEnd {
            return Err(io::Error::other("deflate ended early"));
        }
        piece.deflated.reserve(BLOCK / 2);
    }
}

fn lost() -> Error {
    Error::Write(io::Error::other("a thread that compresses failed"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Text, noise and zeros by turns, so that blocks shrink differently.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        (0..len)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match i / 50_000 % 3 {
                    0 => b"a layer of files "[i % 17],
                    1 => u8::try_from(state >> 56).unwrap(),
                    _ => 0,
                }
            })
            .collect()
    }

    fn packed(plain: &[u8], threads: usize) -> Vec<u8> {
        gzip(&mut &plain[..], Vec::new(), threads).unwrap()
    }

    #[test]
    fn the_bytes_are_the_same_for_any_number_of_threads() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12_345] {
            let plain = sample(len);
            let one = packed(&plain, 1);
            for threads in [2, 8, 100] {
                assert!(packed(&plain, threads) == one, "{len} bytes, {threads} threads");
            }
        }
    }

    #[test]
    fn it_reads_back_as_one_member() {
        for len in [0, 1, BLOCK, 3 * BLOCK + 7] {
            let plain = sample(len);
            let packed = packed(&plain, 2);
            let mut back = Vec::new();
            // This decoder stops after the first member.
            let mut decoder = flate2::bufread::GzDecoder::new(&packed[..]);
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == plain && decoder.into_inner().is_empty(), "{len}");
        }
    }

    #[test]
    fn gunzip_reads_it() {
        let plain = sample(2 * BLOCK + 99);
        let mut gunzip = Command::new("gunzip")
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, packed) = (gunzip.stdin.take().unwrap(), packed(&plain, 2));
        let writing = std::thread::spawn(move || stdin.write_all(&packed).unwrap());
        let output = gunzip.wait_with_output().unwrap();
        writing.join().unwrap();
        assert!(output.status.success() && output.stdout == plain);
    }

    #[test]
    fn blocks_cost_little() {
        let plain: Vec<u8> =
            (0..600_000_u64).flat_map(|i| format!("{:x} ", i * i % 9973).into_bytes()).collect();
        let whole = crate::compress(&mut &plain[..], crate::Compression::Gzip, Vec::new()).unwrap();
        assert!(packed(&plain, 2).len() * 100 < whole.len() * 101);
    }

    #[test]
    fn what_breaks_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let mut broken = io::Cursor::new(sample(5 * BLOCK)).chain(Broken);
        let error = gzip(&mut broken, Vec::new(), 2).unwrap_err();
        assert!(matches!(error, Error::Read(_)), "{error}");
        let full = &mut [0; 1000][..];
        let error = gzip(&mut &sample(9 * BLOCK)[..], full, 2).unwrap_err();
        assert!(matches!(error, Error::Write(_)), "{error}");
    }
}
