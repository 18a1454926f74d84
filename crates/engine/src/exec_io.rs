//! The streams of an attached client: one duplex, whatever is behind it.
//!
//! An exec without a terminal has three pipes; they are shown as one duplex of
//! Docker's 8-byte frames. The end of output is told only after the exec's exit
//! code is known, so that whoever reads to the end can ask for the code and get it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use capsa_runtime::protocol::{FRAME_HEADER, frame_header};

use crate::{Error, Result};

const CHUNK: usize = 32 * 1024;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// An attached client's duplex.
#[derive(Debug)]
pub enum Io {
    /// The monitor's end of an attachment.
    Socket(UnixStream),
    /// The monitor's end of an exec with a terminal.
    Terminal(Box<ExecTerminal>),
    /// An exec's pipes.
    Pipes(Box<ExecPipes>),
}

/// The terminal of one exec.
pub struct ExecTerminal {
    socket: UnixStream,
    exited: Exited,
}

/// Ends when an exec's exit code is known.
type Exited = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Pipes of one exec.
pub struct ExecPipes {
    stdin: Option<pipe::Sender>,
    outputs: [(u8, Option<pipe::Receiver>); 2],
    framed: Vec<u8>,
    taken: usize,
    exited: Exited,
}

/// What an exec's process gets and what we keep: one end of each pipe.
pub(crate) struct Ends {
    /// For the process, in the order stdin, stdout, stderr.
    pub theirs: Vec<OwnedFd>,
    /// Ours.
    pub ours: ExecPipes,
}

impl Ends {
    /// Makes the pipes for the wanted streams (stdin, stdout, stderr); `code` tells the exit.
    pub(crate) fn new(wanted: [bool; 3], code: watch::Receiver<Option<i32>>) -> Result<Self> {
        let mut theirs = Vec::with_capacity(3);
        let mut stdin = None;
        if wanted[0] {
            let (reader, writer) = cloexec_pipe()?;
            theirs.push(reader);
            stdin = Some(pipe::Sender::from_owned_fd(nonblocking(writer)?).map_err(failed)?);
        }
        let mut output = |wanted: bool| -> Result<Option<pipe::Receiver>> {
            if !wanted {
                return Ok(None);
            }
            let (reader, writer) = cloexec_pipe()?;
            theirs.push(writer);
            Ok(Some(pipe::Receiver::from_owned_fd(nonblocking(reader)?).map_err(failed)?))
        };
        let outputs = [(STDOUT, output(wanted[1])?), (STDERR, output(wanted[2])?)];
        let exited = exited(code);
        let ours = ExecPipes { stdin, outputs, framed: Vec::new(), taken: 0, exited };
        Ok(Self { theirs, ours })
    }
}

impl ExecPipes {
    /// Reads one chunk of either output behind a frame header; 0 at the end of both.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut open = false;
        for (stream, slot) in &mut self.outputs {
            let Some(receiver) = slot else { continue };
            self.framed.resize(FRAME_HEADER + CHUNK, 0);
            let mut buffer = ReadBuf::new(&mut self.framed[FRAME_HEADER..]);
            match Pin::new(receiver).poll_read(cx, &mut buffer) {
                Poll::Pending => open = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    let length = buffer.filled().len();
                    if length == 0 {
                        *slot = None;
                        continue;
                    }
                    self.framed.truncate(FRAME_HEADER + length);
                    self.framed[..FRAME_HEADER].copy_from_slice(&frame_header(*stream, length));
                    return Poll::Ready(Ok(length));
                }
            }
        }
        self.framed.clear();
        if open {
            return Poll::Pending;
        }
        ready!(self.exited.as_mut().poll(cx));
        self.exited = Box::pin(std::future::ready(()));
        Poll::Ready(Ok(0))
    }
}

impl AsyncRead for ExecPipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.framed.len() {
            self.taken = 0;
            self.framed.clear();
            if ready!(self.poll_frame(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let from = self.taken;
        let length = (self.framed.len() - from).min(buffer.remaining());
        buffer.put_slice(&self.framed[from..from + length]);
        self.taken = from + length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ExecPipes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            // Nobody reads it: as with a terminal that is not listened to.
            None => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

impl ExecTerminal {
    /// The terminal behind `socket`; `code` tells the exit.
    pub(crate) fn new(socket: UnixStream, code: watch::Receiver<Option<i32>>) -> Self {
        Self { socket, exited: exited(code) }
    }
}

impl AsyncRead for ExecTerminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            ready!(self.exited.as_mut().poll(cx));
            self.exited = Box::pin(std::future::ready(()));
        }
        Poll::Ready(Ok(()))
    }
}

fn exited(mut code: watch::Receiver<Option<i32>>) -> Exited {
    Box::pin(async move {
        // An owner that has gone has ended too.
        let _ = code.wait_for(Option::is_some).await;
    })
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Terminal(terminal) => Pin::new(terminal).poll_read(cx, buffer),
            Self::Pipes(pipes) => Pin::new(pipes).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Terminal(terminal) => Pin::new(&mut terminal.socket).poll_write(cx, bytes),
            Self::Pipes(pipes) => Pin::new(pipes).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Terminal(terminal) => Pin::new(&mut terminal.socket).poll_flush(cx),
            Self::Pipes(pipes) => Pin::new(pipes).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Terminal(terminal) => Pin::new(&mut terminal.socket).poll_shutdown(cx),
            Self::Pipes(pipes) => Pin::new(pipes).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for ExecTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecTerminal").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl fmt::Debug for ExecPipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecPipes").field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

/// A connected pair of stream sockets: ours for async use, theirs blocking.
pub(crate) fn socket_pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    Ok((UnixStream::from_std(ours).map_err(failed)?, theirs.into()))
}

fn cloexec_pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| failed(errno.into()))?;
    Ok(fd)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: io::Error) -> Error {
    Error::kernel(format!("streams of an attached client: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn output_is_framed_and_its_end_waits_for_the_exit_code() {
        let (code, watcher) = watch::channel(None);
        let Ends { mut theirs, mut ours } = Ends::new([true, true, false], watcher).unwrap();
        let mut stdout = std::fs::File::from(theirs.pop().unwrap());
        let mut stdin = std::fs::File::from(theirs.pop().unwrap());
        stdout.write_all(b"hi").unwrap();
        drop(stdout);
        ours.write_all(b"in").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut input = String::new();
        stdin.read_to_string(&mut input).unwrap();
        assert_eq!(input, "in");
        let mut frame = [0; 10];
        ours.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x02hi");
        let mut rest = Vec::new();
        let end = ours.read_to_end(&mut rest);
        tokio::pin!(end);
        assert!(futures_poll(end.as_mut()).await.is_pending());
        code.send_replace(Some(0));
        assert_eq!(end.await.unwrap(), 0);
    }

    async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }
}
