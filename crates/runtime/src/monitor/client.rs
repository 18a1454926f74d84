//! One attached client: a stream socket that gets output and gives input.
//!
//! Output that the socket doesn't take at once waits here; as long as some waits, its
//! stream is not read further, so what waits is one chunk at most.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::Stream;
use crate::protocol::{AttachRequest, frame_header};

/// An attached client.
#[derive(Debug)]
pub(super) struct Client {
    /// Tells clients apart.
    pub(super) serial: u64,
    socket: OwnedFd,
    wants: AttachRequest,
    /// Frames with a header, or the bare bytes.
    framed: bool,
    waiting: Vec<u8>,
    /// How many of the detach keys were typed last.
    typed: usize,
    /// It may still send input.
    reading: bool,
    gone: bool,
}

/// What came from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// So many bytes, in the buffer.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// It has closed its side.
    End,
}

impl Client {
    pub(super) fn new(serial: u64, socket: OwnedFd, wants: AttachRequest, framed: bool) -> Self {
        let reading = wants.stdin;
        let waiting = Vec::new();
        Self { serial, socket, wants, framed, waiting, typed: 0, reading, gone: false }
    }

    /// It is of no more use.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Output waits for it to read.
    pub(super) fn is_behind(&self) -> bool {
        !self.gone && !self.waiting.is_empty()
    }

    pub(super) fn takes(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.wants.stdout,
            Stream::Stderr => self.wants.stderr,
        }
    }

    /// What to wait for; input only if there is room for it.
    pub(super) fn interest(&self, room_for_input: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.reading && room_for_input);
        flags.set(PollFlags::OUT, !self.waiting.is_empty());
        flags
    }

    /// Sends output, or keeps what the socket doesn't take now.
    pub(super) fn give(&mut self, stream: Stream, bytes: &[u8]) {
        let header = frame_header(stream.number(), bytes.len());
        let header: &[u8] = if self.framed { &header } else { &[] };
        let sent = if self.waiting.is_empty() { self.send(header, bytes) } else { 0 };
        self.waiting.extend_from_slice(header.get(sent..).unwrap_or_default());
        let body = sent.saturating_sub(header.len());
        self.waiting.extend_from_slice(bytes.get(body..).unwrap_or_default());
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let sent = self.send(&waiting, &[]);
        if sent < waiting.len() {
            self.waiting = waiting;
            self.waiting.drain(..sent);
        }
    }

    fn send(&mut self, first: &[u8], second: &[u8]) -> usize {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut none = SendAncillaryBuffer::default();
        loop {
            match rustix::net::sendmsg(&self.socket, &slices, &mut none, flags) {
                Ok(sent) => return sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return 0,
                Err(_) => {
                    self.leave();
                    return first.len() + second.len();
                }
            }
        }
    }

    /// Reads input. The detach keys end the client and are not passed on when they
    /// come in one piece with nothing after them.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.reading = false;
                    return Input::End;
                }
                Ok((length, _)) => return self.look_for_keys(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Input::Nothing,
                Err(_) => {
                    self.leave();
                    return Input::End;
                }
            }
        }
    }

    fn look_for_keys(&mut self, bytes: &[u8]) -> Input {
        let keys = &self.wants.detach_keys;
        if keys.is_empty() {
            return Input::Bytes(bytes.len());
        }
        for byte in bytes {
            let next = keys.get(self.typed) == Some(byte);
            self.typed =
                if next { self.typed + 1 } else { usize::from(keys.first() == Some(byte)) };
            if self.typed == keys.len() {
                self.leave();
                return Input::Nothing;
            }
        }
        Input::Bytes(bytes.len())
    }

    /// Both directions end for the other side, whoever still holds the socket.
    pub(super) fn leave(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.waiting = Vec::new();
        self.reading = false;
        self.gone = true;
    }

    /// It still may send input.
    pub(super) fn is_reading(&self) -> bool {
        self.reading
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn client(wants: AttachRequest) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(1, ours.into(), wants, true), theirs)
    }

    #[test]
    fn output_is_framed_and_none_is_lost_when_the_socket_is_full() {
        let (mut client, mut theirs) = client(AttachRequest::default());
        let chunk = vec![b'x'; 30_000];
        let mut frames = 0;
        while !client.is_behind() {
            client.give(Stream::Stderr, &chunk);
            frames += 1;
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        while client.is_behind() {
            client.flush();
        }
        client.leave();
        let all = reader.join().unwrap();
        assert_eq!(all.len(), frames * (chunk.len() + 8));
        assert_eq!(all[..8], [2, 0, 0, 0, 0, 0, 0x75, 0x30]);
        assert_eq!(all[chunk.len() + 8..][..8], all[..8]);
    }

    #[test]
    fn a_client_that_went_away_takes_everything() {
        let (mut client, theirs) = client(AttachRequest::default());
        drop(theirs);
        client.give(Stream::Stdout, b"hello");
        assert!(client.is_gone() && !client.is_behind());
    }

    #[test]
    fn the_detach_keys_end_the_client_even_in_pieces() {
        use std::io::Write;
        let wants = AttachRequest { detach_keys: vec![16, 17], stdin: true, ..Default::default() };
        let (mut client, mut theirs) = client(wants);
        let mut buffer = [0; 64];
        theirs.write_all(&[b'a', 16, b'b', 16]).unwrap();
        assert_eq!(client.read(&mut buffer), Input::Bytes(4));
        assert!(!client.is_gone());
        theirs.write_all(&[17]).unwrap();
        assert_eq!(client.read(&mut buffer), Input::Nothing);
        assert!(client.is_gone());
    }
}
