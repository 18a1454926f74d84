//! A conversation with a process in a container: our standard streams on one side,
//! a hijacked connection on the other.
//!
//! Standard input is read by a thread, because a file, a pipe and a terminal have
//! no readiness in common; the thread ends with the process. Everything else is
//! one task: output as it comes, input as it comes, window sizes, signals.

pub(crate) mod detach;
pub(crate) mod signals;

use std::io::Read;

use bytes::Bytes;
use capsa_api::Hijacked;
use capsa_api::stream::{Demux, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};
use crate::output::{self, terminal};
use detach::DetachKeys;

const BUFFER: usize = 64 << 10;

/// What of our streams takes part.
pub(crate) struct Streams {
    /// Our input goes to the process.
    pub(crate) stdin: bool,
    /// The process has a terminal: bytes are raw and keys can detach.
    pub(crate) tty: bool,
    /// Show its standard output.
    pub(crate) stdout: bool,
    /// Show its standard error.
    pub(crate) stderr: bool,
    /// Keys that detach; none means they are passed on.
    pub(crate) detach: DetachKeys,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The daemon closed it: all output has been shown.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// Copies until the daemon closes the connection or the user detaches.
pub(crate) async fn converse(stream: Hijacked, streams: Streams) -> Result<End> {
    let _raw = match streams.stdin && streams.tty && terminal::stdin_is() {
        true => Some(terminal::Raw::enter()?),
        false => None,
    };
    let framed = !streams.tty;
    let (reader, writer) = split(stream);
    let (show_out, show_err) = (streams.stdout, streams.stderr);
    if !streams.stdin {
        // The writing side stays open: closing it would be taken for our leaving.
        let _writer = writer;
        return show(reader, framed, show_out, show_err).await.map(|()| End::Closed);
    }
    let input = feed(writer, streams);
    tokio::pin!(input);
    let output = show(reader, framed, show_out, show_err);
    tokio::pin!(output);
    let mut feeding = true;
    loop {
        tokio::select! {
            done = &mut output => return done.map(|()| End::Closed),
            fed = &mut input, if feeding => {
                feeding = false;
                if fed? == Fed::Detached {
                    return Ok(End::Detached);
                }
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Fed {
    Everything,
    Detached,
}

/// Sends our input, then ends the sending direction.
async fn feed(mut writer: WriteHalf<Hijacked>, streams: Streams) -> Result<Fed> {
    let mut input = read_stdin();
    let mut detach = streams.detach;
    while let Some(chunk) = input.recv().await {
        let (pass, detached) = match streams.tty {
            true => detach.scan(&chunk),
            false => (chunk.to_vec(), false),
        };
        // The process may be gone already; its output still tells what happened.
        if writer.write_all(&pass).await.is_err() {
            break;
        }
        if detached {
            return Ok(Fed::Detached);
        }
    }
    let _ = writer.shutdown().await;
    // Kept until the other direction ends.
    std::future::pending::<()>().await;
    Ok(Fed::Everything)
}

/// Reads standard input on a thread of its own.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; BUFFER];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn show(
    mut reader: ReadHalf<Hijacked>,
    framed: bool,
    show_out: bool,
    show_err: bool,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::new(framed, show_out, show_err);
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(read) => frames.show(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows the bytes of an attach, exec or logs stream as they come.
pub(crate) struct Frames {
    demux: Option<Demux>,
    show_out: bool,
    show_err: bool,
}

impl Frames {
    /// For a framed stream, or a raw one.
    pub(crate) fn new(framed: bool, show_out: bool, show_err: bool) -> Self {
        Self { demux: framed.then(Demux::default), show_out, show_err }
    }

    /// Shows some more bytes.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(demux) = &mut self.demux else {
            output::out(bytes);
            return Ok(());
        };
        demux.push(bytes);
        while let Some((kind, piece)) =
            demux.next_piece().map_err(|error| Failure::said(error.to_string()))?
        {
            match kind {
                StreamKind::Stdout if self.show_out => output::out(&piece),
                StreamKind::Stderr if self.show_err => output::err(&piece),
                StreamKind::SystemError => {
                    let text = String::from_utf8_lossy(&piece).trim_end().to_owned();
                    return Err(Failure::said(format!("error from daemon in stream: {text}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
