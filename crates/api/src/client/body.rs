//! Bodies of requests and answers.

use std::io::{self, Read};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::ClientError;
use crate::json;

const JSON: &str = "application/json";
const TAR: &str = "application/x-tar";
const UPLOAD_CHUNK: usize = 256 << 10;
const UPLOAD_QUEUE: usize = 4;

/// What a request carries.
#[derive(Debug)]
pub enum Payload {
    /// Nothing.
    Empty,
    /// JSON.
    Json(Bytes),
    /// Bytes over time, sent in chunks with this content type.
    Stream(&'static str, mpsc::Receiver<io::Result<Bytes>>),
}

/// An answer's body as it arrives.
#[derive(Debug)]
pub struct BodyStream {
    incoming: Incoming,
    /// Kept so that the connection is not closed before the body's end.
    _sender: SendRequest<RequestBody>,
}

/// JSON values, one after the other, out of a body.
#[derive(Debug)]
pub struct JsonLines<T> {
    body: BodyStream,
    buffer: BytesMut,
    wanted: PhantomData<T>,
}

/// The body of a request on its way.
#[derive(Debug)]
pub enum RequestBody {
    /// Known whole; taken when sent.
    Whole(Option<Bytes>),
    /// Arrives piece by piece.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Payload {
    /// `body` as JSON; `&()` sends nothing.
    ///
    /// # Errors
    /// When `body` can't be JSON, such as a map with keys that are no strings.
    pub fn json<B: Serialize>(body: &B) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(ClientError::Encode)?;
        Ok(if bytes == b"null" { Self::Empty } else { Self::Json(bytes.into()) })
    }

    /// A tar archive read from `reader` on a thread of its own, which ends with the
    /// reader or when the request is dropped.
    pub fn tar(mut reader: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut chunk = BytesMut::zeroed(UPLOAD_CHUNK);
                let piece = match reader.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => Ok(chunk.split_to(read).freeze()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        Self::Stream(TAR, receiver)
    }

    pub(super) fn into_parts(self) -> (Option<&'static str>, RequestBody) {
        match self {
            Self::Empty => (None, RequestBody::Whole(None)),
            Self::Json(bytes) => (Some(JSON), RequestBody::Whole(Some(bytes))),
            Self::Stream(content_type, receiver) => {
                (Some(content_type), RequestBody::Stream(receiver))
            }
        }
    }
}

impl BodyStream {
    pub(super) fn new(incoming: Incoming, sender: SendRequest<RequestBody>) -> Self {
        Self { incoming, _sender: sender }
    }

    /// The next piece as it came; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// All that is left.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read_to_end(self) -> Result<Bytes, ClientError> {
        Ok(self.incoming.collect().await?.to_bytes())
    }

    /// The body as a sequence of JSON values.
    pub fn json_lines<T: DeserializeOwned>(self) -> JsonLines<T> {
        JsonLines { body: self, buffer: BytesMut::new(), wanted: PhantomData }
    }
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or a line is no `T`.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if let Some(value) = value_of(&line)? {
                    return Ok(Some(value));
                }
                continue;
            }
            match self.body.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return value_of(&self.buffer.split()),
            }
        }
    }
}

fn value_of<T: DeserializeOwned>(line: &[u8]) -> Result<Option<T>, ClientError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    json::from_answer(line)
        .map(Some)
        .map_err(|source| ClientError::Decode { path: "a line of a stream".to_owned(), source })
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(receiver) => {
                receiver.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
