//! Docker's framing of several streams in one: an 8-byte header (stream number,
//! three zero bytes, big-endian length) before each piece. Used by attach, exec
//! and logs when there is no terminal.

use bytes::{Buf, Bytes, BytesMut};

/// Length of a frame's header.
pub const HEADER_LEN: usize = 8;

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard input; servers never send it, but the number exists.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error text of the server.
    SystemError,
}

/// Bytes that aren't frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized stream number {0} in a multiplexed stream")]
pub struct FrameError(pub u8);

/// Takes pieces of a multiplexed stream apart. Pieces are handed out as they
/// arrive, not only when a frame is complete, so nothing is buffered twice.
#[derive(Debug, Default)]
pub struct Demux {
    buffer: BytesMut,
    current: Option<(StreamKind, usize)>,
}

impl Demux {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece; `None` until more bytes are pushed.
    ///
    /// # Errors
    /// When a header has an unknown stream number.
    pub fn next_piece(&mut self) -> Result<Option<(StreamKind, Bytes)>, FrameError> {
        loop {
            if let Some((kind, left)) = self.current {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let piece = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                let left = left - piece.len();
                self.current = (left > 0).then_some((kind, left));
                return Ok(Some((kind, piece)));
            }
            if self.buffer.len() < HEADER_LEN {
                return Ok(None);
            }
            let kind = kind_of(self.buffer[0])?;
            self.buffer.advance(4);
            let length = self.buffer.get_u32() as usize;
            self.current = (length > 0).then_some((kind, length));
        }
    }
}

/// The header of a frame of `length` bytes.
pub fn header(kind: StreamKind, length: u32) -> [u8; HEADER_LEN] {
    let number = match kind {
        StreamKind::Stdin => 0,
        StreamKind::Stdout => 1,
        StreamKind::Stderr => 2,
        StreamKind::SystemError => 3,
    };
    let [a, b, c, d] = length.to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}

fn kind_of(number: u8) -> Result<StreamKind, FrameError> {
    match number {
        0 => Ok(StreamKind::Stdin),
        1 => Ok(StreamKind::Stdout),
        2 => Ok(StreamKind::Stderr),
        3 => Ok(StreamKind::SystemError),
        other => Err(FrameError(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, text) in
            [(StreamKind::Stdout, "hello"), (StreamKind::Stderr, ""), (StreamKind::Stderr, "no")]
        {
            bytes.extend(header(kind, text.len() as u32));
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn frames_come_apart_however_the_bytes_arrive() {
        for step in 1..frames().len() {
            let (mut demux, mut out, mut err) = (Demux::default(), Vec::new(), Vec::new());
            for chunk in frames().chunks(step) {
                demux.push(chunk);
                while let Some((kind, piece)) = demux.next_piece().unwrap() {
                    if kind == StreamKind::Stdout { &mut out } else { &mut err }.extend(piece);
                }
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"hello"[..], &b"no"[..]));
        }
    }

    #[test]
    fn plain_text_is_no_frame() {
        let mut demux = Demux::default();
        demux.push(b"hello world");
        assert_eq!(demux.next_piece(), Err(FrameError(b'h')));
    }
}
