//! Connections taken over by attach and exec: the answer's head, and then bytes
//! between the client and the engine's socket until the output ends.
//!
//! The client's half-close is the end of stdin, nothing more. The connection is
//! closed after the last byte of output, or when the client types its detach keys.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use capsa_api::{Transport, Version};
use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::detach_keys::{DetachKeys, Scanner, Typed};
use crate::raw::Intercept;
use crate::reply::{self, Reply, ReplyBody};

pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

const OUTPUT_BUFFER: usize = 64 << 10;
const INPUT_BUFFER: usize = 16 << 10;
/// How long a client may take to close after the output's end; closing a Unix
/// socket with unread input would make its last read fail.
const LINGER: Duration = Duration::from_secs(2);
const QUEUE: usize = 8;

/// A container's streams: output comes out, stdin goes in and ends with a shutdown.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for T {}

/// Whose input reaches the container, and how it may leave.
pub(crate) struct Input {
    /// The client wants to send stdin.
    pub(crate) wanted: bool,
    /// Looked for when there is a terminal.
    pub(crate) keys: DetachKeys,
}

/// The content type of output.
pub(crate) fn content_type(tty: bool, version: Version) -> &'static str {
    if !tty && version.at_least(42) { MULTIPLEXED_STREAM } else { RAW_STREAM }
}

/// Answers 101 and joins the connection with the engine's stream; for a request that can't be
/// upgraded the output becomes an ordinary body.
pub(crate) fn join(
    upgrade: Option<OnUpgrade>,
    version: Version,
    tty: bool,
    engine: impl Duplex,
    input: Input,
) -> Reply {
    let Some(upgrade) = upgrade else { return as_body(engine) };
    let kind = content_type(tty, version);
    let scanner = (tty && input.wanted).then(|| input.keys.scanner());
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run(upgraded, engine, input.wanted, scanner).await,
            Err(error) => {
                tracing::debug!(%error, "client left before its connection was taken over")
            }
        }
    });
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    reply.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    reply
}

async fn run(upgraded: Upgraded, engine: impl Duplex, wanted: bool, scanner: Option<Scanner>) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Intercept>>() else { return };
    let (unread, transport) = parts.io.into_inner().into_parts();
    let early = [parts.read_buf, unread];
    let outcome = match transport {
        Transport::Unix(mut client) => {
            let (reader, writer) = client.split();
            exchange(early, reader, writer, engine, wanted, scanner).await
        }
        Transport::Tcp(mut client) => {
            let (reader, writer) = client.split();
            exchange(early, reader, writer, engine, wanted, scanner).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a taken over connection broke");
    }
}

/// Copies both ways until the output ends or the client detaches.
async fn exchange(
    early: [Bytes; 2],
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    engine: impl Duplex,
    wanted: bool,
    scanner: Option<Scanner>,
) -> io::Result<()> {
    let (mut output, mut stdin) = tokio::io::split(engine);
    {
        let sending = send_output(&mut output, &mut writer);
        let receiving = async {
            if wanted {
                take_input(early, &mut reader, &mut stdin, scanner).await
            } else {
                drain(&mut reader).await.map(|()| Left::Ended)
            }
        };
        tokio::pin!(sending, receiving);
        tokio::select! {
            sent = &mut sending => sent?,
            left = &mut receiving => match left {
                Ok(Left::Detached) => {}
                Ok(Left::Ended) | Err(_) => sending.await?,
            },
        }
    }
    writer.shutdown().await?;
    let _ = tokio::time::timeout(LINGER, drain(&mut reader)).await;
    Ok(())
}

/// Why there is no more input.
enum Left {
    Ended,
    Detached,
}

async fn take_input(
    early: [Bytes; 2],
    reader: &mut (impl AsyncRead + Unpin),
    stdin: &mut (impl AsyncWrite + Unpin),
    mut scanner: Option<Scanner>,
) -> io::Result<Left> {
    for bytes in early {
        if pass_on(&bytes, stdin, scanner.as_mut()).await? {
            return Ok(Left::Detached);
        }
    }
    let mut buffer = vec![0; INPUT_BUFFER];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            stdin.shutdown().await?;
            return Ok(Left::Ended);
        }
        if pass_on(&buffer[..read], stdin, scanner.as_mut()).await? {
            return Ok(Left::Detached);
        }
    }
}

/// Writes typed bytes to stdin; whether the detach keys were among them.
async fn pass_on(
    bytes: &[u8],
    stdin: &mut (impl AsyncWrite + Unpin),
    scanner: Option<&mut Scanner>,
) -> io::Result<bool> {
    match scanner.filter(|scanner| !scanner.is_plain(bytes)) {
        None => stdin.write_all(bytes).await.map(|()| false),
        Some(scanner) => match scanner.feed(bytes) {
            Typed::Pass(bytes) => stdin.write_all(&bytes).await.map(|()| false),
            Typed::Detach(bytes) => stdin.write_all(&bytes).await.map(|()| true),
        },
    }
}

async fn send_output(
    output: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; OUTPUT_BUFFER];
    loop {
        match output.read(&mut buffer).await? {
            0 => return Ok(()),
            read => writer.write_all(&buffer[..read]).await?,
        }
    }
}

async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while reader.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// The output as a body that ends with it; no input.
fn as_body(mut engine: impl Duplex) -> Reply {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if engine.shutdown().await.is_err() {
            return;
        }
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(INPUT_BUFFER);
            let piece = match engine.read_buf(&mut buffer).await {
                Ok(0) => return,
                Ok(_) => Ok(buffer.freeze()),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    reply::stream(RAW_STREAM, ReplyBody::Stream(receiver))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    async fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn start(
        client: UnixStream,
        engine: UnixStream,
        early: &'static [u8],
        scanner: Option<Scanner>,
    ) -> tokio::task::JoinHandle<io::Result<()>> {
        tokio::spawn(async move {
            let (reader, writer) = client.into_split();
            let early = [Bytes::from_static(early), Bytes::new()];
            exchange(early, reader, writer, engine, true, scanner).await
        })
    }

    #[tokio::test]
    async fn half_close_ends_stdin_and_output_goes_on() {
        let ((mut client, served), (engine, mut container)) = (pair().await, pair().await);
        let task = start(served, engine, b"ear", None);
        client.write_all(b"ly").await.unwrap();
        client.shutdown().await.unwrap();
        let mut stdin = String::new();
        container.read_to_string(&mut stdin).await.unwrap();
        assert_eq!(stdin, "early");
        container.write_all(b"after").await.unwrap();
        drop(container);
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "after");
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_output_closes_the_connection_though_stdin_is_open() {
        let ((mut client, served), (engine, mut container)) = (pair().await, pair().await);
        let task = start(served, engine, b"", None);
        client.write_all(b"unread").await.unwrap();
        container.write_all(b"bye").await.unwrap();
        drop(container);
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "bye");
        drop(client);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn detach_keys_close_the_client_only() {
        let ((mut client, served), (engine, mut container)) = (pair().await, pair().await);
        let task = start(served, engine, b"", Some(DetachKeys::default().scanner()));
        client.write_all(b"x\x10\x11").await.unwrap();
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.unwrap();
        drop(client);
        task.await.unwrap().unwrap();
        let mut stdin = Vec::new();
        container.read_to_end(&mut stdin).await.unwrap();
        assert_eq!((output.as_slice(), stdin.as_slice()), (&b""[..], &b"x"[..]));
    }
}
