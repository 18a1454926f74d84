//! Connections that are taken over without `Upgrade`: what old clients do.
//!
//! Docker answers such an attach or exec start with `200 OK` and raw bytes on the
//! same connection, which an HTTP library can't. So the first request head of each
//! connection is looked at before the library sees it: if it takes the connection
//! over and doesn't say so, an `Upgrade` header is put in, and the library's `101`
//! is written as Docker's `200`. Only a connection's first request is treated so;
//! a later one gets its output as an ordinary body.
//!
//! For the same requests the end of input is kept from the library, which would
//! take it for the client's leaving: it only means the end of stdin.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use capsa_api::Transport;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const HEAD_FIRST: usize = 4 << 10;
const HEAD_MAX: usize = 64 << 10;
const HEAD_END: &[u8] = b"\r\n\r\n";
const UPGRADE: &[u8] = b"\r\nUpgrade: tcp";
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";
const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

/// A connection as the HTTP library sees it.
pub(crate) struct Intercept {
    transport: Transport,
    /// Read already, not yet handed on.
    early: Bytes,
    /// The first request takes the connection over.
    takes_over: bool,
    /// The next answer's head is rewritten.
    rewrites: bool,
    /// A rewritten head on its way.
    outgoing: Bytes,
}

/// What the first head of a connection asks for.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Incomplete,
    Plain,
    TakesOver,
    /// Put an `Upgrade` header at this offset.
    TakesOverSilently(usize),
}

impl Intercept {
    /// Reads the first bytes and decides.
    pub(crate) async fn open(mut transport: Transport) -> io::Result<Self> {
        let mut early = BytesMut::with_capacity(HEAD_FIRST);
        let head = loop {
            if transport.read_buf(&mut early).await? == 0 {
                break Head::Plain;
            }
            match classify(&early) {
                Head::Incomplete if early.len() < HEAD_MAX => {}
                head => break head,
            }
        };
        let takes_over = matches!(head, Head::TakesOver | Head::TakesOverSilently(_));
        let rewrites = matches!(head, Head::TakesOverSilently(_));
        if let Head::TakesOverSilently(at) = head {
            let rest = early.split_off(at);
            early.extend_from_slice(UPGRADE);
            early.extend_from_slice(&rest);
        }
        let outgoing = Bytes::new();
        Ok(Self { transport, early: early.freeze(), takes_over, rewrites, outgoing })
    }

    /// What was read and not handed on, and the connection itself.
    pub(crate) fn into_parts(self) -> (Bytes, Transport) {
        (self.early, self.transport)
    }

    /// Writes Docker's head in place of the library's; the length of the latter.
    fn poll_rewrite(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.is_empty() {
            self.outgoing = Bytes::from_static(PLAIN);
        }
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.transport).poll_write(cx, &self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.outgoing.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.rewrites = false;
        let end = find(buf, HEAD_END).map_or(buf.len(), |at| at + HEAD_END.len());
        Poll::Ready(Ok(end))
    }
}

fn classify(bytes: &[u8]) -> Head {
    if !bytes.starts_with(b"POST ") {
        let short = bytes.len() < 5 && b"POST ".starts_with(bytes);
        return if short { Head::Incomplete } else { Head::Plain };
    }
    let Some(end) = find(bytes, HEAD_END) else { return Head::Incomplete };
    let head = &bytes[..end];
    let line_end = find(head, b"\r\n").unwrap_or(head.len());
    let (line, fields) = head.split_at(line_end);
    let target = line.split(|b| *b == b' ').nth(1).unwrap_or_default();
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let hijacks = path.ends_with(b"/attach")
        || (path.ends_with(b"/start") && find(path, b"/exec/").is_some());
    if !hijacks {
        return Head::Plain;
    }
    let says_so = fields
        .split(|b| *b == b'\n')
        .any(|f| f.len() >= 8 && f[..8].eq_ignore_ascii_case(b"upgrade:"));
    if says_so { Head::TakesOver } else { Head::TakesOverSilently(line_end) }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

impl AsyncRead for Intercept {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let length = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..length]);
            this.early.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.transport).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if this.takes_over && buf.filled().len() == before => Poll::Pending,
            read => read,
        }
    }
}

impl AsyncWrite for Intercept {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.rewrites && buf.starts_with(SWITCHING) {
            return this.poll_rewrite(cx, buf);
        }
        this.rewrites &= buf.is_empty();
        Pin::new(&mut this.transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.rewrites {
            let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| b);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_take_over_silently_are_changed() {
        let head = |text: &str| classify(text.replace('\n', "\r\n").as_bytes());
        assert_eq!(head("GET / HTTP/1.1\n\n"), Head::Plain);
        assert_eq!(head("PO"), Head::Incomplete);
        assert_eq!(
            head("POST /containers/x/attach?stream=1 HTTP/1.1\nHost: x\n"),
            Head::Incomplete
        );
        assert_eq!(head("POST /containers/x/start HTTP/1.1\n\n"), Head::Plain);
        assert_eq!(
            head("POST /v1.41/exec/x/start HTTP/1.1\nHost: x\nupgrade: tcp\n\n"),
            Head::TakesOver
        );
        let line = "POST /containers/x/attach HTTP/1.1";
        assert_eq!(head(&format!("{line}\nHost: x\n\nstdin")), Head::TakesOverSilently(line.len()));
    }
}
