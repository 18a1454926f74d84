//! Getting and keeping what an `Authorization` header holds.
//!
//! One slot for each registry, scope and user: whoever finds it empty or expired fills
//! it, the others wait for that. Passwords are sent to the registry itself (basic) or
//! to the token server that it names over a connection no weaker than its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::challenge::Challenge;
use super::config::Credentials;
use super::url::{encode, with_query};

/// How long a token is good when nothing is said (distribution's token protocol).
const LIFETIME_S: u64 = 60;
const LIFETIME_MAX_S: u64 = 24 * 3600;
const TOKEN_MAX: usize = 32 << 10;
/// Beyond this number those that nobody uses are forgotten.
const SLOTS_MAX: usize = 256;
const CLIENT_ID: &str = "capsa";

/// Whose slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) base: String,
    pub(super) scopes: Vec<String>,
    pub(super) credentials: Option<Credentials>,
}

/// What is known about getting in.
#[derive(Debug, Default)]
pub(super) struct Slot {
    header: Option<String>,
    expires: Option<Instant>,
    /// Where tokens come from, once a registry said so.
    pub(super) bearer: Option<Challenge>,
}

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<Key, Arc<Mutex<Slot>>>>,
}

/// A request for a token.
pub(super) struct TokenRequest {
    pub(super) url: String,
    pub(super) authorization: Option<String>,
    /// A form to post; without it the request is a GET.
    pub(super) form: Option<String>,
}

/// What a token server gave.
#[derive(Debug)]
pub(super) struct Grant {
    token: String,
    lifetime: Duration,
    /// Stands for the password from now on.
    pub(super) identity: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

impl Tokens {
    pub(super) fn slot(&self, key: Key) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

impl Slot {
    pub(super) fn lock(slot: &Mutex<Self>) -> MutexGuard<'_, Self> {
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header to send now, none when there is none or it is too old.
    pub(super) fn header(&self) -> Option<&str> {
        let fresh = self.expires.is_none_or(|expires| Instant::now() < expires);
        self.header.as_deref().filter(|_| fresh)
    }

    pub(super) fn keep(&mut self, grant: &Grant) {
        self.header = Some(format!("Bearer {}", grant.token));
        self.expires = Instant::now().checked_add(grant.lifetime.mul_f64(0.9));
    }

    pub(super) fn keep_basic(&mut self, username: &str, password: &str) {
        self.header = Some(basic(username, password));
        self.expires = None;
    }
}

impl TokenRequest {
    /// What to ask the token server of `challenge`; none when it names none. `offline`
    /// asks for an identity token too.
    pub(super) fn new(
        challenge: &Challenge,
        scopes: &[String],
        credentials: Option<&Credentials>,
        offline: bool,
    ) -> Option<Self> {
        let realm = challenge.param("realm")?;
        let service = challenge.param("service");
        if let Some(Credentials::Identity(token)) = credentials {
            return Some(Self::oauth(realm, service, scopes, token));
        }
        let mut url = realm.to_owned();
        if let Some(service) = service {
            url = with_query(&url, "service", service);
        }
        for scope in scopes {
            url = with_query(&url, "scope", scope);
        }
        let mut authorization = None;
        if let Some(Credentials::Password { username, password }) = credentials {
            url = with_query(&url, "account", username);
            authorization = Some(basic(username, password));
        }
        if offline {
            url = with_query(&with_query(&url, "offline_token", "true"), "client_id", CLIENT_ID);
        }
        Some(Self { url, authorization, form: None })
    }

    fn oauth(realm: &str, service: Option<&str>, scopes: &[String], token: &str) -> Self {
        let mut form = format!(
            "grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={}",
            encode(token)
        );
        for (key, value) in [("service", service), ("scope", Some(&*scopes.join(" ")))] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                form.push_str(&format!("&{key}={}", encode(value)));
            }
        }
        Self { url: realm.to_owned(), authorization: None, form: Some(form) }
    }
}

impl Grant {
    /// From a token server's JSON.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(json)
            .map_err(|error| format!("the token server's answer is no token: {error}"))?;
        let token = if wire.token.is_empty() { wire.access_token } else { wire.token };
        let sendable = token.bytes().all(|b| (0x21..0x7f).contains(&b));
        if token.is_empty() || token.len() > TOKEN_MAX || !sendable {
            return Err("the token server's answer has no usable token".to_owned());
        }
        let given = wire.expires_in.filter(|s| s.is_finite() && *s >= 1.0);
        let lifetime_s = given.map_or(LIFETIME_S, |s| s.min(LIFETIME_MAX_S as f64) as u64);
        let identity = wire.refresh_token.filter(|token| !token.is_empty());
        Ok(Self { token, lifetime: Duration::from_secs(lifetime_s), identity })
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge() -> Challenge {
        let header = r#"Bearer realm="https://a/token?x=1",service="r""#;
        super::super::challenge::parse([header]).remove(0)
    }

    #[test]
    fn a_password_goes_into_the_header_and_an_identity_into_a_form() {
        let scopes = ["repository:a/b:pull,push".to_owned()];
        let me = Credentials::Password { username: "me".into(), password: "pw".into() };
        let request = TokenRequest::new(&challenge(), &scopes, Some(&me), true).unwrap();
        assert_eq!(
            request.url,
            "https://a/token?x=1&service=r&scope=repository:a/b:pull%2Cpush&account=me\
             &offline_token=true&client_id=capsa"
        );
        assert_eq!(request.authorization.as_deref(), Some("Basic bWU6cHc="));
        let token = Credentials::Identity("a&b".into());
        let request = TokenRequest::new(&challenge(), &scopes, Some(&token), false).unwrap();
        assert!(request.form.unwrap().contains("refresh_token=a%26b&service=r&scope=repo"));
        assert_eq!(request.url, "https://a/token?x=1");
    }

    #[test]
    fn a_grant_needs_a_token_that_fits_a_header() {
        let grant = Grant::parse(br#"{"access_token":"x","expires_in":1e300}"#).unwrap();
        assert_eq!((grant.token.as_str(), grant.lifetime.as_secs()), ("x", LIFETIME_MAX_S));
        for bad in ["", "{}", r#"{"token":"a\r\nb"}"#, r#"{"token":"a b"}"#, "[1]"] {
            assert!(Grant::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_old_token_is_not_sent() {
        let mut slot = Slot::default();
        slot.keep(&Grant { token: "x".into(), lifetime: Duration::ZERO, identity: None });
        assert_eq!(slot.header(), None);
        slot.keep_basic("a", "b");
        assert_eq!(slot.header(), Some("Basic YTpi"));
    }
}
