//! An image of a registry, as the source of a copy.

use std::io::Read;

use capsa_oci::{Descriptor, Digest, Platform, Reference};

use super::blob::BlobReader;
use super::endpoint::{self, Endpoint};
use super::session::{Outcome, Session};
use super::{Access, Client, Failure, RegistryError, Step, manifest};
use crate::{Error, Image, Result, Source};

/// One image, resolved; its blobs are read when asked for.
pub struct RegistrySource {
    /// The endpoint that had the manifest, then those after it.
    sessions: Vec<Session>,
    image: Image,
    digest: Digest,
}

impl Client {
    /// Finds the image that `reference` means for `platform` (this machine's, if none is
    /// given) and reads its documents. Without tag and digest, `latest` is meant.
    ///
    /// # Errors
    /// [`Error::Registry`]. With a platform that the one image there is not for,
    /// [`Error::Platform`].
    pub fn pull(
        &self,
        reference: &Reference,
        access: &Access,
        platform: Option<&Platform>,
    ) -> Result<RegistrySource> {
        let name = name_of(reference);
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let endpoints = endpoint::endpoints(self.config(), reference.domain());
        let find = |session: &Session| manifest::find(session, &name, &wanted);
        let (session, found, others) = self.first(&endpoints, reference, access, find)?;
        let names = reference.tag().and_then(|tag| reference.with_tag(tag).ok());
        let names = names.or_else(|| reference.digest().is_none().then(|| latest(reference)));
        let image = Image::new(found.config, found.manifest, names.into_iter().collect());
        let image = image.map_err(|error| {
            let text = match error {
                Error::Archive(text) => text,
                other => other.to_string(),
            };
            session.invalid(&Step::Manifest(name.clone()), text)
        })?;
        // An index said already whom it is for; configs often leave out the variant.
        if platform.is_some() && found.digest == image.manifest_digest {
            check_platform(&image, &wanted)?;
        }
        let mut sessions = vec![session];
        // One that can't even be reached now won't be missed.
        sessions.extend(others.iter().filter_map(|e| pulling(self, e, reference, access).ok()));
        Ok(RegistrySource { sessions, image, digest: found.digest })
    }

    /// The digest that `reference` has now, by the cheapest request.
    ///
    /// # Errors
    /// [`Error::Registry`].
    pub fn digest(&self, reference: &Reference, access: &Access) -> Result<Digest> {
        let name = name_of(reference);
        let endpoints = endpoint::endpoints(self.config(), reference.domain());
        let ask = |session: &Session| manifest::digest(session, &name);
        Ok(self.first(&endpoints, reference, access, ask)?.1)
    }

    /// What `reference` leads to at its registry, and the platforms that it is for.
    ///
    /// # Errors
    /// [`Error::Registry`].
    pub fn describe(
        &self,
        reference: &Reference,
        access: &Access,
    ) -> Result<(Descriptor, Vec<Platform>)> {
        let name = name_of(reference);
        let endpoints = endpoint::endpoints(self.config(), reference.domain());
        let ask = |session: &Session| manifest::describe(session, &name);
        Ok(self.first(&endpoints, reference, access, ask)?.1)
    }

    /// What `ask` gets at the first endpoint where it succeeds, and the endpoints left.
    pub(super) fn first<'a, T>(
        &self,
        endpoints: &'a [Endpoint],
        reference: &Reference,
        access: &Access,
        ask: impl Fn(&Session) -> Outcome<T>,
    ) -> Outcome<(Session, T, &'a [Endpoint])> {
        let mut rest = endpoints;
        while let Some((endpoint, others)) = rest.split_first() {
            let asked = pulling(self, endpoint, reference, access)
                .and_then(|session| ask(&session).map(|got| (session, got)));
            match asked {
                Ok((session, got)) => return Ok((session, got, others)),
                Err(error) if others.is_empty() || is_final(&error) => return Err(error),
                Err(_) => rest = others,
            }
        }
        // The registry itself is always among them.
        let (host, path) = (reference.domain(), reference.path());
        let none = "it has no endpoint";
        Err(Box::new(RegistryError::new(host, path, Step::Connect, Failure::Unreachable, none)))
    }
}

impl RegistrySource {
    /// The image, with its name if a tag was asked for.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What the reference leads to, of the index if it is one: the digest that a name
    /// with a digest has.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Source for RegistrySource {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(vec![self.image.clone()])
    }

    fn open(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        if offset > blob.size {
            return Err(Error::Missing(format!("byte {offset} of blob {}", blob.digest)));
        }
        Ok(Box::new(BlobReader::open(&self.sessions, &blob.digest, blob.size, offset)?))
    }
}

impl std::fmt::Debug for RegistrySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrySource").field("digest", &self.digest).finish_non_exhaustive()
    }
}

fn pulling(
    client: &Client,
    endpoint: &Endpoint,
    reference: &Reference,
    access: &Access,
) -> Outcome<Session> {
    Session::new(client, endpoint, reference.path(), "pull", &[], access)
}

/// A mirror's failure is not the answer, unless nobody wants one any more.
fn is_final(error: &RegistryError) -> bool {
    error.failure == Failure::Cancelled
}

/// What to ask the registry for.
fn name_of(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

fn latest(reference: &Reference) -> Reference {
    reference.clone().with_default_tag()
}

fn check_platform(image: &Image, wanted: &Platform) -> Result<()> {
    let mut found = Platform {
        architecture: image.parsed.architecture.clone(),
        os: image.parsed.os.clone(),
        variant: image.parsed.variant.clone(),
        os_version: None,
    };
    if found.variant.is_none() {
        found.variant.clone_from(&wanted.variant);
    }
    if crate::platform::rank(&found, wanted).is_some() {
        return Ok(());
    }
    use crate::platform::show;
    Err(Error::Platform { wanted: show(wanted), found: show(&found) })
}
