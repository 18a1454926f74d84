//! Registries: the OCI distribution protocol (and Docker's v2 registries, from which it
//! came), as the two ends of a copy.
//!
//! * [`Client::pull`] resolves a reference and is a [`crate::Source`], [`Client::push`]
//!   a [`crate::Sink`]. [`Client::digest`], [`Client::tags`] and [`Client::login`] are
//!   the small ones.
//! * Calls block; they may come from many threads. Memory is bounded: documents by
//!   their limits, blobs stream.
//!
//! Everything that a registry says is a stranger's: sizes are bounded, digests checked,
//! texts cleaned. Credentials go to the registry they are for and to the token server
//! that it names, never after a redirect.
//!
//! From below: [`wire`] sends one request, [`session`] adds authorization, redirects
//! and second tries for one repository at one endpoint, the rest says what to ask.
//! Not here: stored logins, progress in anybody's words.

mod authorize;
mod blob;
mod challenge;
mod config;
mod dns;
mod endpoint;
mod error;
mod login;
mod manifest;
mod resolver;
mod session;
mod sink;
mod source;
mod tags;
mod tls;
mod token;
mod upload;
mod url;
mod wait;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::Method;

pub use config::{Credentials, RegistryConfig, Retries, Timeouts};
pub use error::{Failure, RegistryError, Step};
pub use sink::{OnSent, RegistrySink, Sent};
pub use source::RegistrySource;
pub use wait::Cancel;

use endpoint::Endpoint;
use session::Outcome;
use token::Tokens;
use wire::{Payload, Request, Wire};

/// A registry may get its certificate while we run.
const SCHEME_AGE_MAX: Duration = Duration::from_secs(300);

/// The way to all registries: connections and tokens are kept in it. Clones share them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Who asks, and how to make it stop.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For the registry of the reference; mirrors don't get them.
    pub credentials: Option<Credentials>,
    /// Ends it.
    pub cancel: Cancel,
}

struct Inner {
    config: RegistryConfig,
    wire: Wire,
    tokens: Tokens,
    /// What insecure hosts turned out to speak, and when.
    schemes: Mutex<HashMap<String, (String, Instant)>>,
}

impl Client {
    /// A client with these settings. Nothing is opened yet.
    pub fn new(config: RegistryConfig) -> Self {
        let wire = Wire::new(config.clone());
        let inner = Inner { config, wire, tokens: Tokens::default(), schemes: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    fn wire(&self) -> &Wire {
        &self.inner.wire
    }

    fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    /// How an endpoint is spoken to. An insecure one is asked, first with TLS.
    fn scheme(&self, endpoint: &Endpoint, cancel: &Cancel) -> Outcome<String> {
        if let Some(scheme) = &endpoint.scheme {
            return Ok(scheme.clone());
        }
        let authority = &endpoint.authority;
        if !self.config().is_insecure(authority) {
            return Ok("https".to_owned());
        }
        if let Some((known, since)) = self.schemes().get(authority)
            && since.elapsed() < SCHEME_AGE_MAX
        {
            return Ok(known.clone());
        }
        let mut failed = String::new();
        for scheme in ["https", "http"] {
            if cancel.is_cancelled() {
                break;
            }
            match self.answers(&format!("{scheme}://{authority}/v2/")) {
                Ok(()) => {
                    let found = (scheme.to_owned(), Instant::now());
                    self.schemes().insert(authority.clone(), found);
                    return Ok(scheme.to_owned());
                }
                Err(error) => failed = error,
            }
        }
        let failure = if cancel.is_cancelled() { Failure::Cancelled } else { Failure::Unreachable };
        Err(Box::new(RegistryError::new(authority, "", Step::Connect, failure, failed)))
    }

    fn answers(&self, url: &str) -> Result<(), String> {
        let request =
            Request { method: Method::GET, url, headers: &[], authorization: None, patient: false };
        match self.wire().exchange(&request, Payload::Empty) {
            Ok(_) => Ok(()),
            Err(broken) => Err(broken.message),
        }
    }

    fn schemes(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, Instant)>> {
        self.inner.schemes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", self.config()).finish_non_exhaustive()
    }
}
