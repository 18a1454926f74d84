//! Talking to one repository at one endpoint: requests with authorization, redirects
//! and second tries, and answers that were not wanted turned into errors.
//!
//! Invariant: an `Authorization` header goes to the endpoint's own scheme, host and
//! port, and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use ureq::http::Method;

use super::config::Credentials;
use super::endpoint::Endpoint;
use super::error::clean;
use super::token::{Key, Slot};
use super::url::{Origin, join, with_query};
use super::wait::{Backoff, Cancel, retry_after};
use super::wire::{Answer, Broken, Payload, Request, header, read_body};
use super::{Access, Client, Failure, RegistryError, Step};

const REDIRECTS_MAX: usize = 10;
/// Of an error's or a token's JSON.
pub(super) const ANSWER_MAX: u64 = 1 << 20;

/// Errors of this module; [`crate::Error::Registry`] holds them further out.
pub(super) type Outcome<T> = Result<T, Box<RegistryError>>;

/// One repository at one endpoint, as one user.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    endpoint: Endpoint,
    /// `https://host:port`.
    base: String,
    pub(super) origin: Option<Origin>,
    repository: String,
    pub(super) scopes: Vec<String>,
    pub(super) credentials: Option<Credentials>,
    pub(super) slot: Arc<Mutex<Slot>>,
    /// It answered before: from then on a refused connection is worth waiting for.
    reached: Arc<AtomicBool>,
    pub(super) cancel: Cancel,
}

/// A request of a session.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
    pub(super) step: Step,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorItem>,
    /// Token servers have their own forms.
    #[serde(alias = "error_description", alias = "message")]
    details: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Call<'_> {
    pub(super) fn get(url: String, step: Step) -> Self {
        Self::new(Method::GET, url, step)
    }

    pub(super) fn new(method: Method, url: String, step: Step) -> Self {
        Self { method, url, headers: Vec::new(), payload: Payload::Empty, step }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload<'b>(self, payload: Payload<'b>) -> Call<'b> {
        let Self { method, url, headers, step, .. } = self;
        Call { method, url, headers, payload, step }
    }
}

impl Session {
    /// For `path` (empty: the registry as such) with `actions` on it, such as `pull`,
    /// and `pull` on each of `also`.
    pub(super) fn new(
        client: &Client,
        endpoint: &Endpoint,
        path: &str,
        actions: &str,
        also: &[String],
        access: &Access,
    ) -> Outcome<Self> {
        let repository =
            if path.is_empty() { String::new() } else { format!("{}{path}", endpoint.prefix) };
        let scope = |path: &str, actions: &str| format!("repository:{path}:{actions}");
        let mut scopes = Vec::new();
        if !repository.is_empty() {
            scopes.push(scope(&repository, actions));
        }
        scopes.extend(also.iter().map(|path| scope(path, "pull")));
        // A mirror is another server: the registry's password is not for it.
        let own = access.credentials.clone().filter(|_| endpoint.is_origin);
        let credentials = own.or_else(|| endpoint.credentials.clone());
        let scheme = client.scheme(endpoint, &access.cancel)?;
        let base = format!("{scheme}://{}", endpoint.authority);
        let (key_scopes, key_who) = (scopes.clone(), credentials.clone());
        let key = Key { base: base.clone(), scopes: key_scopes, credentials: key_who };
        Ok(Self {
            client: client.clone(),
            endpoint: endpoint.clone(),
            origin: Origin::of(&base),
            base,
            repository,
            scopes,
            credentials,
            slot: client.tokens().slot(key),
            reached: Arc::default(),
            cancel: access.cancel.clone(),
        })
    }

    /// The URL of something in the repository.
    pub(super) fn url(&self, rest: &str) -> String {
        let slash = if self.repository.is_empty() { "" } else { "/" };
        let url = format!("{}/v2/{}{slash}{rest}", self.base, self.repository);
        match &self.endpoint.namespace {
            Some(namespace) => with_query(&url, "ns", namespace),
            None => url,
        }
    }

    /// What a `Location` means; it may lead to another server.
    pub(super) fn locate(&self, location: &str) -> Option<String> {
        join(&self.base, location)
    }

    pub(super) fn backoff(&self) -> Backoff {
        let mut retries = self.client.config().retries;
        if !self.endpoint.is_origin {
            // The registry itself comes next.
            retries.attempts = retries.attempts.min(2);
        }
        Backoff::new(retries)
    }

    /// The answer to `call` when its status is one of `wanted`.
    pub(super) fn expect(&self, call: &mut Call<'_>, wanted: &[u16]) -> Outcome<Answer> {
        let answer = self.send(call)?;
        if wanted.contains(&answer.status().as_u16()) {
            return Ok(answer);
        }
        Err(self.refused(&call.step, answer))
    }

    /// The whole body of an answer with status 200, and its headers' reader.
    pub(super) fn fetch<T>(
        &self,
        call: &mut Call<'_>,
        max: u64,
        head: impl Fn(&Answer) -> T,
    ) -> Outcome<(T, Vec<u8>)> {
        let mut backoff = self.backoff();
        loop {
            let answer = self.expect(call, &[200])?;
            let head = head(&answer);
            let long = header(&answer, "content-length").and_then(|n| n.parse::<u64>().ok());
            let too_long = || self.invalid(&call.step, format!("more than {max} bytes of JSON"));
            if long.is_some_and(|long| long > max) {
                return Err(too_long());
            }
            match read_body(answer, max) {
                Ok(bytes) => return Ok((head, bytes)),
                Err(error) if is_limit(&error) => return Err(too_long()),
                Err(error) => {
                    let failed = self.unreachable(&call.step, error.to_string());
                    self.pause(&mut backoff, failed)?;
                }
            }
        }
    }

    /// The answer to `call`, whatever its status is. What may pass is tried again,
    /// unless a stream was sent: whoever has the stream does that.
    pub(super) fn send(&self, call: &mut Call<'_>) -> Outcome<Answer> {
        let mut backoff = self.backoff();
        loop {
            self.check_cancelled(&call.step)?;
            let (failed, asked) = match self.attempt(call) {
                Ok(answer) if !Failure::of(answer.status().as_u16()).is_passing() => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let now = jiff::Timestamp::now();
                    let asked = header(&answer, "retry-after").and_then(|v| retry_after(v, now));
                    (self.refused(&call.step, answer), asked)
                }
                Err(failed) => (failed, None),
            };
            if !failed.is_passing() || !call.payload.is_replayable() {
                return Err(failed);
            }
            let Some(delay) = backoff.next(asked) else { return Err(failed) };
            if self.cancel.wait(delay) {
                return Err(self.cancelled(&call.step));
            }
        }
    }

    /// The answer to `call` as it is, even if it wants a login.
    pub(super) fn ask(&self, call: &Call<'_>) -> Outcome<Answer> {
        let request = Request {
            method: call.method.clone(),
            url: &call.url,
            headers: &call.headers,
            authorization: None,
            patient: false,
        };
        let answer = self.client.wire().exchange(&request, Payload::Empty);
        answer.map_err(|broken| self.broken(&call.step, broken))
    }

    /// Waits before the next try, or gives `failed` back when there is none.
    pub(super) fn pause(&self, backoff: &mut Backoff, failed: Box<RegistryError>) -> Outcome<()> {
        match backoff.next(None) {
            Some(delay) if !self.cancel.wait(delay) => Ok(()),
            Some(_) => Err(self.cancelled(&failed.step)),
            None => Err(failed),
        }
    }

    pub(super) fn check_cancelled(&self, step: &Step) -> Outcome<()> {
        if self.cancel.is_cancelled() { Err(self.cancelled(step)) } else { Ok(()) }
    }

    fn attempt(&self, call: &mut Call<'_>) -> Outcome<Answer> {
        let (answer, used) = self.follow(call)?;
        let Some(used) = used.filter(|_| answer.status() == 401) else { return Ok(answer) };
        if !self.authorize(&answer, used.as_deref())? {
            return Ok(answer);
        }
        // Read to its end, the connection serves again.
        let _ = read_body(answer, ANSWER_MAX);
        if !call.payload.is_replayable() {
            let text = "the token expired on the way".to_owned();
            return Err(self.error(&call.step, Failure::Unavailable, text));
        }
        Ok(self.follow(call)?.0)
    }

    /// Sends, and goes where it is sent; with the answer comes what was shown to the
    /// endpoint, none if it is another server's.
    fn follow(&self, call: &mut Call<'_>) -> Outcome<(Answer, Option<Option<String>>)> {
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let own = Origin::of(&url) == self.origin;
            let authorization = if own { self.authorization()? } else { None };
            let request = Request {
                method: call.method.clone(),
                url: &url,
                headers: &call.headers,
                authorization: authorization.as_deref(),
                patient: call.method == Method::PUT || call.method == Method::PATCH,
            };
            let answer = self
                .client
                .wire()
                .exchange(&request, call.payload.again())
                .map_err(|broken| self.broken(&call.step, broken))?;
            self.reached.store(true, Ordering::Relaxed);
            let Some(location) = redirect(&answer) else {
                return Ok((answer, own.then_some(authorization)));
            };
            if !call.payload.is_replayable() {
                let text = "it wants a stream to be sent elsewhere".to_owned();
                return Err(self.error(&call.step, Failure::Refused, text));
            }
            let next = join(&url, location);
            let _ = read_body(answer, ANSWER_MAX);
            url = next.ok_or_else(|| {
                self.invalid(&call.step, "it redirects to what is no URL".to_owned())
            })?;
        }
        Err(self.invalid(&call.step, format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// An answer that was not wanted, with what its body says.
    pub(super) fn refused(&self, step: &Step, answer: Answer) -> Box<RegistryError> {
        let status = answer.status().as_u16();
        let body = read_body(answer, ANSWER_MAX).unwrap_or_default();
        let parsed = serde_json::from_slice::<ErrorBody>(&body).ok();
        let first = parsed.as_ref().and_then(|body| body.errors.first());
        let other = parsed.as_ref().and_then(|body| body.details.as_ref()?.as_str());
        let fallback = ureq::http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("no reason given");
        let text = first.map(|item| item.message.as_str()).filter(|text| !text.is_empty());
        let message = clean(text.or(other).unwrap_or(fallback));
        let mut error = self.error(step, Failure::of(status), message);
        error.status = Some(status);
        error.code = first.map(|item| clean(&item.code)).filter(|code| !code.is_empty());
        error
    }

    pub(super) fn invalid(&self, step: &Step, message: String) -> Box<RegistryError> {
        self.error(step, Failure::Invalid, message)
    }

    pub(super) fn unreachable(&self, step: &Step, message: String) -> Box<RegistryError> {
        self.error(step, Failure::Unreachable, message)
    }

    fn cancelled(&self, step: &Step) -> Box<RegistryError> {
        self.error(step, Failure::Cancelled, "cancelled".to_owned())
    }

    pub(super) fn broken(&self, step: &Step, broken: Broken) -> Box<RegistryError> {
        let mut error = self.unreachable(step, broken.message);
        error.lasting = broken.lasting || (broken.refused && !self.reached.load(Ordering::Relaxed));
        error
    }

    pub(super) fn error(
        &self,
        step: &Step,
        failure: Failure,
        message: String,
    ) -> Box<RegistryError> {
        let (host, repository) = (self.endpoint.authority.clone(), self.repository.clone());
        Box::new(RegistryError::new(host, repository, step.clone(), failure, message))
    }
}

fn redirect(answer: &Answer) -> Option<&str> {
    match answer.status().as_u16() {
        301 | 302 | 303 | 307 | 308 => header(answer, "location"),
        _ => None,
    }
}

fn is_limit(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::BodyExceedsLimit(_)))
}
