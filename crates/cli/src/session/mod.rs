//! One call of a verb: its global flags, its configuration, its daemon.

pub(crate) mod autostart;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod credentials;
mod endpoint;

use std::cell::{Cell, OnceCell};

use capsa_api::{Client, Endpoint, Version};

use crate::failure::{Failure, Result};
use config::ConfigFile;
pub(crate) use endpoint::{DEFAULT_SOCKET, parse_host};

/// The flags before the verb.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    /// `-H`.
    pub(crate) host: Option<String>,
    /// `--context`.
    pub(crate) context: Option<String>,
    /// `--config`.
    pub(crate) config: Option<String>,
    /// `-D`.
    pub(crate) debug: bool,
}

/// What every verb gets.
pub(crate) struct Session {
    /// The flags before the verb.
    pub(crate) globals: Globals,
    /// The verb as it was typed: `ps`, `container ls`.
    pub(crate) name: String,
    config: OnceCell<ConfigFile>,
    client: OnceCell<Client>,
    version: Cell<Option<Version>>,
}

impl Session {
    /// A session for the verb `name`; nothing is read or connected yet.
    pub(crate) fn new(globals: Globals, name: String) -> Self {
        Self {
            globals,
            name,
            config: OnceCell::new(),
            client: OnceCell::new(),
            version: Cell::default(),
        }
    }

    /// The client of the chosen daemon; connects at the first request.
    pub(crate) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut client = Client::new(self.endpoint()?);
        if let Some(version) = self.wanted_version()? {
            client.set_version(version);
        }
        for (name, value) in &self.config().headers {
            if let (Ok(name), Ok(value)) = (name.parse(), value.parse()) {
                client.set_header(name, value);
            }
        }
        Ok(self.client.get_or_init(|| client))
    }

    /// The client, after making sure that somebody answers: for verbs that start to
    /// read their input before the first answer, and so can't be tried again.
    pub(crate) async fn answering_client(&self) -> Result<&Client> {
        let client = self.client()?;
        client.bytes(hyper::Method::GET, "/_ping", capsa_api::Payload::Empty).await?;
        Ok(client)
    }

    /// The same call for a daemon that speaks an older version.
    pub(crate) fn speaking(&self, version: Version) -> Self {
        let session = Self::new(self.globals.clone(), self.name.clone());
        session.version.set(Some(version));
        session
    }

    /// Whether another try with `version` would differ from this one.
    pub(crate) fn can_still_speak(&self, version: Version) -> bool {
        self.version.get().is_none() && version < Version::MAX && version >= Version::MIN
    }

    /// The user's configuration file; empty when there is none.
    pub(crate) fn config(&self) -> &ConfigFile {
        self.config.get_or_init(|| ConfigFile::load(self.globals.config.as_deref()))
    }

    /// Where the daemon is.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        endpoint::choose(self)
    }

    /// Whether the daemon is the host's own and not one that was named.
    pub(crate) fn is_default_daemon(&self) -> bool {
        let default = Endpoint::Unix(DEFAULT_SOCKET.into());
        self.endpoint().is_ok_and(|endpoint| endpoint == default)
    }

    fn wanted_version(&self) -> Result<Option<Version>> {
        if let Some(version) = self.version.get() {
            return Ok(Some(version));
        }
        match std::env::var("DOCKER_API_VERSION") {
            Ok(text) if !text.is_empty() => text
                .trim_start_matches('v')
                .parse()
                .map(Some)
                .map_err(|error| Failure::said(format!("DOCKER_API_VERSION: {error}"))),
            _ => Ok(None),
        }
    }
}
