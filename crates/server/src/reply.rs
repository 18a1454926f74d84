//! Answers: their bodies, the headers every answer has, and the few shapes that
//! routes build.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use capsa_api::Version;
use capsa_api::types::ErrorResponse;
use capsa_engine::view::ByteStream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;

/// An answer.
pub(crate) type Reply = Response<ReplyBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const SERVER_NAME: &str = concat!("capsa/", env!("CARGO_PKG_VERSION"), " (linux)");

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// Known whole.
    Whole(Option<Bytes>),
    /// One piece that is known later; the headers go out at once.
    Later(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    /// Piece by piece, ends with the sender.
    Stream(ByteStream),
    /// Lines made without back pressure.
    Lines(tokio::sync::mpsc::UnboundedReceiver<Bytes>),
}

/// `status` with `value` as JSON and a newline, as Docker ends its bodies.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = Vec::with_capacity(256);
    match serde_json::to_writer(&mut bytes, value) {
        Ok(()) => bytes.push(b'\n'),
        Err(error) => {
            return failure(&ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        }
    }
    with_type(status, JSON, ReplyBody::Whole(Some(bytes.into())))
}

/// 200 with JSON.
pub(crate) fn ok<T: Serialize>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// A status alone.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(None));
    *reply.status_mut() = status;
    reply
}

/// 204, or 304 when nothing changed.
pub(crate) fn changed(changed: bool) -> Reply {
    empty(if changed { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

/// 200 with a body of this type that arrives over time.
pub(crate) fn stream(content_type: &'static str, body: ReplyBody) -> Reply {
    with_type(StatusCode::OK, HeaderValue::from_static(content_type), body)
}

/// 200 with JSON that is known later.
pub(crate) fn later(body: impl Future<Output = Bytes> + Send + 'static) -> Reply {
    with_type(StatusCode::OK, JSON, ReplyBody::Later(Box::pin(body)))
}

/// An error as Docker writes it.
pub(crate) fn failure(error: &ApiError) -> Reply {
    json(error.status, &ErrorResponse { message: error.message.clone() })
}

/// Adds what every answer carries.
pub(crate) fn finish(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static(Version::MAX_TEXT));
    headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers.insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    reply
}

fn with_type(status: StatusCode, content_type: HeaderValue, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match this {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Later(future) => future.as_mut().poll(cx).map(|bytes| {
                *this = Self::Whole(None);
                Some(Ok(Frame::data(bytes)))
            }),
            Self::Stream(receiver) => {
                receiver.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data)))
            }
            Self::Lines(receiver) => {
                receiver.poll_recv(cx).map(|line| line.map(|l| Ok(Frame::data(l))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}
