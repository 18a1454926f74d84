//! A connection taken over after `101 Switching Protocols`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ClientError;
use crate::Transport;

/// The bare connection. Shutting down the write side tells the process that its
/// stdin has ended; output goes on until the daemon closes.
#[derive(Debug)]
pub struct Hijacked {
    /// Output is framed (see [`crate::stream`]); false for a terminal, and where the
    /// daemon did not say.
    pub multiplexed: bool,
    early: Bytes,
    transport: Transport,
}

pub(super) async fn take(answer: Response<Incoming>) -> Result<Hijacked, ClientError> {
    let content_type = answer.headers().get(CONTENT_TYPE);
    let multiplexed =
        content_type.is_some_and(|t| t == "application/vnd.docker.multiplexed-stream");
    let upgraded = hyper::upgrade::on(answer).await?;
    let parts = upgraded
        .downcast::<TokioIo<Transport>>()
        .map_err(|_| io::Error::other("the connection is not the one that was opened"))?;
    Ok(Hijacked { multiplexed, early: parts.read_buf, transport: parts.io.into_inner() })
}

impl Hijacked {
    /// What arrived together with the headers, and the socket.
    pub fn into_parts(self) -> (Bytes, Transport) {
        (self.early, self.transport)
    }
}

impl AsyncRead for Hijacked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.transport).poll_read(cx, buf);
        }
        let length = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..length]);
        this.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
