//! The client every verb uses: HTTP/1.1 over a Unix socket or TCP, made for one
//! short call. One idle connection is kept and reused; a request that finds none
//! connects anew, so a long stream never blocks the next call. No pool, no retry
//! but one: an idle connection that the server closed in the meantime.
//!
//! Runs on any tokio runtime; a current-thread one is enough. The connection's
//! own task lives on it.

mod body;
mod error;
mod hijack;

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::ErrorResponse;
use crate::{Endpoint, Version, json};
pub use body::{BodyStream, JsonLines, Payload};
pub use error::ClientError;
pub use hijack::Hijacked;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A client of one daemon.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    prefix: String,
    headers: HeaderMap,
    idle: Mutex<Option<SendRequest<body::RequestBody>>>,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Answer {
    /// Status below 400.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: BodyStream,
}

impl Client {
    /// A client of the daemon at `endpoint`; connects at the first request.
    pub fn new(endpoint: Endpoint) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("api.moby.localhost"));
        let prefix = format!("/v{}", Version::MAX);
        Self { endpoint, prefix, headers, idle: Mutex::new(None) }
    }

    /// Speaks `version` from now on.
    pub fn set_version(&mut self, version: Version) {
        self.prefix = format!("/v{version}");
    }

    /// Sends this header with every request.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// Where the daemon is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET path` (without version prefix), the answer read as JSON.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Payload::Empty).await
    }

    /// `POST path` with a JSON body, the answer read as JSON.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.call(Method::POST, path, Payload::json(body)?).await
    }

    /// `POST path` without a body; whether something changed (false for 304).
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn post_empty(&self, path: &str) -> Result<bool> {
        self.act(Method::POST, path, Payload::Empty).await
    }

    /// `DELETE path`; whether something changed.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<bool> {
        self.act(Method::DELETE, path, Payload::Empty).await
    }

    /// A request whose answer's body doesn't matter; whether something changed.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn act(&self, method: Method, path: &str, payload: Payload) -> Result<bool> {
        let (answer, sender) = self.send(method, path, payload, &HeaderMap::new()).await?;
        let changed = answer.status() != StatusCode::NOT_MODIFIED;
        self.collect(answer.into_body(), sender).await?;
        Ok(changed)
    }

    /// A request whose answer is read as JSON; an empty body reads as `null`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<T> {
        let bytes = self.bytes(method, path, payload).await?;
        let text = if bytes.is_empty() { b"null" } else { bytes.as_ref() };
        json::from_answer(text)
            .map_err(|source| ClientError::Decode { path: path.to_owned(), source })
    }

    /// A request whose answer is wanted as it came.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn bytes(&self, method: Method, path: &str, payload: Payload) -> Result<Bytes> {
        let (answer, sender) = self.send(method, path, payload, &HeaderMap::new()).await?;
        self.collect(answer.into_body(), sender).await
    }

    /// A request whose answer arrives over time. The headers are there when this
    /// returns; the connection ends with the body.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stream(&self, method: Method, path: &str, payload: Payload) -> Result<Answer> {
        self.stream_with(method, path, payload, &HeaderMap::new()).await
    }

    /// [`Client::stream`] with headers of its own.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stream_with(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        headers: &HeaderMap,
    ) -> Result<Answer> {
        let (answer, sender) = self.send(method, path, payload, headers).await?;
        let (parts, incoming) = answer.into_parts();
        let body = BodyStream::new(incoming, sender);
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// `POST path` with `Upgrade: tcp`: the connection itself, once the daemon has
    /// answered 101.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn hijack<B: Serialize>(&self, path: &str, body: &B) -> Result<Hijacked> {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        let payload = Payload::json(body)?;
        let (answer, _sender) = self.send(Method::POST, path, payload, &headers).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::NotUpgraded { status: answer.status().as_u16() });
        }
        hijack::take(answer).await
    }

    /// Sends one request and returns once the answer's headers are there; an
    /// answer of 400 or more becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        extra: &HeaderMap,
    ) -> Result<(Response<Incoming>, SendRequest<body::RequestBody>)> {
        let request = self.request(method, path, payload, extra)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (answer, sender) = match idle {
            Some(mut sender) => match sender.try_send_request(request).await {
                Ok(answer) => (answer, sender),
                Err(mut failed) => match failed.take_message() {
                    Some(request) => self.send_anew(request).await?,
                    None => return Err(failed.into_error().into()),
                },
            },
            None => self.send_anew(request).await?,
        };
        if answer.status().as_u16() < 400 {
            return Ok((answer, sender));
        }
        let status = answer.status().as_u16();
        let body = self.collect(answer.into_body(), sender).await?;
        Err(ClientError::Api { status, message: message_of(&body) })
    }

    async fn send_anew(
        &self,
        request: Request<body::RequestBody>,
    ) -> Result<(Response<Incoming>, SendRequest<body::RequestBody>)> {
        let connected = self.endpoint.connect().await;
        let transport = connected.map_err(|source| ClientError::Connect {
            endpoint: self.endpoint.to_string(),
            source,
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(transport)).await?;
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await?;
        Ok((answer, sender))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        extra: &HeaderMap,
    ) -> Result<Request<body::RequestBody>> {
        let (content_type, body) = payload.into_parts();
        let uri = [self.prefix.as_str(), path].concat();
        let mut request = Request::builder().method(method).uri(uri).body(body)?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(request)
    }

    /// Reads a body to its end and keeps the connection for the next request.
    async fn collect(
        &self,
        body: Incoming,
        mut sender: SendRequest<body::RequestBody>,
    ) -> Result<Bytes> {
        use http_body_util::BodyExt;
        let bytes = body.collect().await?.to_bytes();
        if sender.ready().await.is_ok() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
        Ok(bytes)
    }
}

/// The text of an error body: Docker's `{"message":…}`, or the body itself.
fn message_of(body: &[u8]) -> String {
    match json::from_answer::<ErrorResponse>(body) {
        Ok(error) if !error.message.is_empty() => error.message,
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    }
}
