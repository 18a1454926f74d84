//! One request as a route gets it: the engine, the version, the name in the
//! path, query values by name, and the body in the form it is wanted.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use capsa_api::encoding::{is_true, query_pairs};
use capsa_api::{Filters, Version, json};
use capsa_engine::Engine;
use capsa_engine::view::ByteSource;
use http_body_util::{BodyExt, Limited};
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::{ApiError, Result};

/// A parameter of our own, which no client of Docker sends: say what would be removed,
/// and remove nothing.
pub(crate) const DRY_RUN: &str = "dryrun";
/// Beside it, with the value `containers`: as if stopped containers had been pruned before.
pub(crate) const AFTER: &str = "after";

/// The largest JSON body; a seccomp profile in a create body may have tens of kilobytes.
const JSON_MAX: usize = 8 << 20;
const UPLOAD_QUEUE: usize = 8;
/// How much of an unwanted body is read.
const DRAIN_MAX: usize = 256 << 20;

/// A request on its way to its route.
pub(crate) struct Call {
    /// What serves it.
    pub(crate) engine: Engine,
    /// Online cpus of the host, for the range of cpu limits.
    pub(crate) cpus: usize,
    /// The version the client speaks.
    pub(crate) version: Version,
    /// What stands for `{…}` in the route, decoded.
    pub(crate) name: String,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// The connection, for routes that take it over.
    pub(crate) upgrade: Option<OnUpgrade>,
    query: Vec<(String, String)>,
    body: RequestBody,
}

/// A body that is read to its end even when nobody wants it: a client that is still
/// sending would get a broken pipe instead of its answer.
struct RequestBody(Option<Incoming>);

impl Call {
    pub(crate) fn new(
        engine: Engine,
        cpus: usize,
        version: Version,
        request: hyper::Request<Incoming>,
    ) -> Self {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let query = parts.uri.query().map(query_pairs).unwrap_or_default();
        let name = String::new();
        Self {
            engine,
            cpus,
            version,
            name,
            headers: parts.headers,
            upgrade,
            query,
            body: RequestBody(Some(body)),
        }
    }

    /// The first value of `key`; empty when absent.
    pub(crate) fn query(&self, key: &str) -> &str {
        self.query.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    /// Whether `key` is given at all.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.query.iter().any(|(k, _)| k == key)
    }

    /// Every value of `key`.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// `key` as one of Docker's form booleans.
    pub(crate) fn flag(&self, key: &str) -> bool {
        is_true(self.query(key))
    }

    /// `key` as a boolean that is `default` when absent.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) { self.flag(key) } else { default }
    }

    /// `key` as a number; `None` when absent or empty.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.query(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("invalid value {text:?} for {key}: want a number"))
            }),
        }
    }

    /// The `filters`, of which only `known` keys are allowed.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<Filters> {
        let filters = Filters::parse(self.query("filters"))
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        if let Some(key) = filters.keys().find(|key| !known.contains(key)) {
            return Err(ApiError::bad_request(format!("invalid filter '{key}'")));
        }
        Ok(filters)
    }

    /// The body as JSON; an empty one is an error.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let bytes = self.json_bytes().await?;
        if bytes.trim_ascii().is_empty() {
            return Err(ApiError::bad_request("invalid JSON: got EOF while reading request body"));
        }
        json::from_slice(&bytes).map_err(|error| ApiError::invalid_json(&error))
    }

    /// The body as JSON; an empty one is the zero value.
    pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(self) -> Result<T> {
        let bytes = self.json_bytes().await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        json::from_slice(&bytes).map_err(|error| ApiError::invalid_json(&error))
    }

    /// The bytes of a JSON body.
    pub(crate) async fn json_bytes(mut self) -> Result<Bytes> {
        let Some(body) = self.body.0.take_if(|body| !body.is_end_stream()) else {
            return Ok(Bytes::new());
        };
        if let Some(kind) = self.headers.get(CONTENT_TYPE) {
            let text = kind.to_str().unwrap_or_default();
            let media = text.split(';').next().unwrap_or_default().trim();
            if !media.is_empty() && !media.eq_ignore_ascii_case("application/json") {
                self.body.0 = Some(body);
                return Err(ApiError::bad_request(format!(
                    "unsupported Content-Type header ({text}): must be 'application/json'"
                )));
            }
        }
        match Limited::new(body, JSON_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(ApiError::bad_request(format!("reading the request body: {error}"))),
        }
    }

    /// The body as bytes over time, for a blocking reader.
    pub(crate) fn upload(mut self) -> ByteSource {
        let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
        if let Some(body) = self.body.0.take() {
            tokio::spawn(pump(body, sender));
        }
        Box::new(Upload { receiver, current: Bytes::new() })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.0.take_if(|body| !body.is_end_stream()) {
            tokio::spawn(drain(body));
        }
    }
}

/// Moves a body into a queue; what the reader doesn't want is drained.
async fn pump(mut body: Incoming, sender: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(io::Error::other(error)),
        };
        if sender.send(piece).await.is_err() {
            return drain(body).await;
        }
    }
}

/// Reads on for a while and forgets.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// A body read by a thread that may block.
struct Upload {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
