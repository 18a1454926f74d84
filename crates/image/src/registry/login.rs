//! Whether credentials are good.

use super::authorize::challenges;
use super::config::Credentials;
use super::session::{Call, Outcome, Session};
use super::{Access, Cancel, Client, Step, endpoint};
use crate::Result;

impl Client {
    /// Shows `credentials` to the registry `domain`. What comes back is an identity
    /// token, if the registry gives one: to be kept instead of the password.
    ///
    /// # Errors
    /// [`crate::Error::Registry`]: `Unauthorized` when they are refused.
    pub fn login(
        &self,
        domain: &str,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let access = Access { credentials: Some(credentials.clone()), cancel: cancel.clone() };
        Ok(login(self, domain, &access)?)
    }
}

fn login(client: &Client, domain: &str, access: &Access) -> Outcome<Option<String>> {
    let session = Session::new(client, &endpoint::origin(domain), "", "", &[], access)?;
    let mut call = Call::get(session.url(""), Step::Login);
    // As nobody first: what it asks for tells whether it has a token server.
    let asked = session.ask(&call)?;
    let mut identity = None;
    if let Some(bearer) = challenges(&asked).iter().find(|c| c.scheme == "bearer") {
        identity = session.grant(bearer, true)?.identity;
    }
    session.expect(&mut call, &[200])?;
    Ok(identity)
}
