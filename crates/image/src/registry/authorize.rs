//! Getting in: what a session shows to its endpoint, and how it comes by it.

use ureq::http::Method;

use super::challenge::{self, Challenge};
use super::config::Credentials;
use super::error::clean;
use super::session::{ANSWER_MAX, Outcome, Session};
use super::token::{Grant, Slot, TokenRequest};
use super::url::Origin;
use super::wire::{Answer, Payload, Request, read_body};
use super::{Failure, Step};

impl Session {
    /// What to show now, if anything is known.
    pub(super) fn authorization(&self) -> Outcome<Option<String>> {
        if let Some(Credentials::Bearer(token)) = &self.credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        let mut slot = Slot::lock(&self.slot);
        if slot.header().is_none()
            && let Some(bearer) = slot.bearer.clone()
        {
            // It ran out and would be refused.
            slot.keep(&self.grant(&bearer, false)?);
        }
        Ok(slot.header().map(str::to_owned))
    }

    /// Gets what a 401 asks for; false when there is nothing new to show.
    pub(super) fn authorize(&self, answer: &Answer, used: Option<&str>) -> Outcome<bool> {
        if matches!(self.credentials, Some(Credentials::Bearer(_))) {
            return Ok(false);
        }
        let mut slot = Slot::lock(&self.slot);
        if slot.header().is_some() && slot.header() != used {
            return Ok(true);
        }
        let challenges = challenges(answer);
        let of = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            let grant = self.grant(bearer, false)?;
            slot.keep(&grant);
            slot.bearer = Some(bearer.clone());
            return Ok(true);
        }
        match (&self.credentials, of("basic")) {
            (Some(Credentials::Password { username, password }), Some(_)) => {
                slot.keep_basic(username, password);
                Ok(slot.header() != used)
            }
            _ => Ok(false),
        }
    }

    /// A token from the server that `bearer` names.
    pub(super) fn grant(&self, bearer: &Challenge, offline: bool) -> Outcome<Grant> {
        let step = Step::Authorize;
        let mut scopes = self.scopes.clone();
        let asked = bearer.param("scope").filter(|scope| !scope.is_empty());
        if scopes.is_empty() {
            scopes.extend(asked.map(str::to_owned));
        }
        let request = TokenRequest::new(bearer, &scopes, self.credentials.as_ref(), offline);
        let Some(request) = request else {
            return Err(self.invalid(&step, "it names no token server".to_owned()));
        };
        let weaker = self.origin.as_ref().is_some_and(Origin::is_https)
            && !Origin::of(&request.url).is_some_and(|realm| realm.is_https());
        if weaker {
            let text = format!("its token server {:?} has no TLS", clean(&request.url));
            return Err(self.invalid(&step, text));
        }
        let json = self.ask_for_token(&request, &step)?;
        Grant::parse(&json).map_err(|text| self.invalid(&step, text))
    }

    fn ask_for_token(&self, request: &TokenRequest, step: &Step) -> Outcome<Vec<u8>> {
        let mut backoff = self.backoff();
        loop {
            self.check_cancelled(step)?;
            let failed = match self.token_answer(request, step) {
                Ok(json) => return Ok(json),
                Err(failed) if !failed.is_passing() => return Err(failed),
                Err(failed) => failed,
            };
            self.pause(&mut backoff, failed)?;
        }
    }

    fn token_answer(&self, request: &TokenRequest, step: &Step) -> Outcome<Vec<u8>> {
        let form = [("content-type", "application/x-www-form-urlencoded".to_owned())];
        let (method, headers, payload) = match &request.form {
            Some(body) => (Method::POST, &form[..], Payload::Bytes(body.as_bytes())),
            None => (Method::GET, &[][..], Payload::Empty),
        };
        let sent = Request {
            method,
            url: &request.url,
            headers,
            authorization: request.authorization.as_deref(),
            patient: false,
        };
        let answer = self.client.wire().exchange(&sent, payload);
        let answer = answer.map_err(|broken| self.broken(step, broken))?;
        if answer.status() != 200 {
            let mut failed = self.refused(step, answer);
            // Whatever a token server says no with, it is about who asks.
            if failed.failure == Failure::Refused || failed.failure == Failure::Denied {
                failed.failure = Failure::Unauthorized;
            }
            return Err(failed);
        }
        read_body(answer, ANSWER_MAX).map_err(|error| self.unreachable(step, error.to_string()))
    }
}

/// The challenges of an answer.
pub(super) fn challenges(answer: &Answer) -> Vec<Challenge> {
    let values = answer.headers().get_all("www-authenticate");
    challenge::parse(values.iter().filter_map(|value| value.to_str().ok()))
}
