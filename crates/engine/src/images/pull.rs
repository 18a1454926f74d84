//! Images from registries: found, copied into the store, named.
//!
//! A name gets the new image only when all of it is here. The digest that the registry
//! has for the reference (of the index, if there is one) is kept beside it: that is how
//! `name@digest` finds the image again.

use std::sync::PoisonError;

use capsa_image::registry::{Access, Cancel, Credentials, Failure, Step};
use capsa_image::{Blob, Error as ImageError, Image, Layer, Result as ImageResult, Sink, copy};
use capsa_oci::{Digest, Platform, Reference};

use super::Images;
use super::ends::Incoming;
use super::progress::{OnLine, layer_line, plain, report};
use crate::view::DistributionView;
use crate::{Error, Result};

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its id.
    pub id: Digest,
    /// What it was asked for as, familiar form.
    pub name: String,
}

impl Images {
    /// Fetches what `reference` means, for `platform` (this machine's, if none is given).
    /// `tell` gets lines in Docker's words.
    ///
    /// # Errors
    /// The registry does not have it, can't be reached or sends what it should not; what
    /// was there under the name stays.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        access: &Access,
        tell: &OnLine<'_>,
    ) -> Result<Pulled> {
        let reference = &reference.clone().with_default_tag();
        let pulled = {
            let _moving = self.shared.moving.read().unwrap_or_else(PoisonError::into_inner);
            self.pull_held(reference, platform, access, tell)
        };
        self.sweep()?;
        pulled
    }

    /// The tags of a repository, each as a reference to pull.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn remote_tags(&self, repository: &Reference, access: &Access) -> Result<Vec<Reference>> {
        let tags = self.registries.tags(repository, access);
        tags.map_err(|error| explained(error, &repository.familiar_name()))
    }

    /// Shows credentials to a registry; the identity token that it gave, if it did.
    ///
    /// # Errors
    /// `Denied` when it refuses them, or it can't be reached.
    pub fn login(
        &self,
        registry: &str,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        Ok(self.registries.login(registry, credentials, cancel)?)
    }

    /// What a registry has for a reference now.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn distribution(&self, reference: &Reference, access: &Access) -> Result<DistributionView> {
        let reference = reference.clone().with_default_tag();
        let described = self.registries.describe(&reference, access);
        let (descriptor, platforms) =
            described.map_err(|error| explained(error, &reference.familiar()))?;
        Ok(DistributionView { descriptor, platforms })
    }

    fn pull_held(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        access: &Access,
        tell: &OnLine<'_>,
    ) -> Result<Pulled> {
        let name = reference.familiar();
        let failed = |error| explained(error, &name);
        let source = self.registries.pull(reference, access, platform).map_err(failed)?;
        let part = reference.digest().map(Digest::as_str).or(reference.tag()).unwrap_or_default();
        tell(layer_line(part, &format!("Pulling from {}", reference.path())));
        let mut image = source.image().clone();
        if reference.digest().is_some() {
            image.names.clear();
        }
        let before = self.resolve(&name).ok();
        let store = Incoming::new(&self.store, &self.limits, &self.shared.arrivals)?;
        let arriving = Arriving { store: &store, reference, digest: source.digest(), tell };
        let on_progress = |layer: &Layer, done: u64| {
            report(tell, layer.blob.digest.short(), "Downloading", done, layer.blob.size);
        };
        copy(&source, std::slice::from_ref(&image), &arriving, &on_progress).map_err(failed)?;
        for tag in &image.names {
            self.set_name(&image.id, tag)?;
        }
        tell(plain(&format!("Digest: {}", source.digest())));
        let news = match before {
            Some(before) if before == image.id => "Image is up to date for",
            _ => "Downloaded newer image for",
        };
        tell(plain(&format!("Status: {news} {name}")));
        Ok(Pulled { id: image.id, name })
    }
}

/// The store, telling what becomes of each layer.
struct Arriving<'a> {
    store: &'a Incoming,
    reference: &'a Reference,
    digest: &'a Digest,
    tell: &'a OnLine<'a>,
}

impl Arriving<'_> {
    fn tell(&self, layer: &Layer, what: &str) {
        (self.tell)(layer_line(layer.blob.digest.short(), what));
    }
}

impl Sink for Arriving<'_> {
    fn lanes(&self) -> usize {
        self.store.lanes()
    }

    fn has_layer(&self, layer: &Layer) -> ImageResult<bool> {
        let there = self.store.has_layer(layer)?;
        self.tell(layer, if there { "Already exists" } else { "Pulling fs layer" });
        Ok(there)
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> ImageResult<()> {
        self.store.layer(layer, blob)?;
        self.tell(layer, "Download complete");
        self.tell(layer, "Pull complete");
        Ok(())
    }

    fn image(&self, image: &Image) -> ImageResult<()> {
        let name = format!("{}@{}", self.reference.familiar_name(), self.digest);
        self.store
            .put_image(image, |record| {
                if !record.repo_digests.contains(&name) {
                    record.repo_digests.push(name);
                }
                record.hidden = false;
            })
            .map_err(|error| ImageError::end("keep image", error))
    }
}

/// The registry's answer in the words that Docker's clients know, with its own behind them.
pub(super) fn explained(error: ImageError, name: &str) -> Error {
    let ImageError::Registry(registry) = &error else { return error.into() };
    let text = match (&registry.failure, &registry.step) {
        (Failure::NotFound, Step::Manifest(_)) => {
            format!("manifest for {name} not found: manifest unknown: {registry}")
        }
        (
            Failure::Unauthorized | Failure::Denied,
            Step::Manifest(_) | Step::Authorize | Step::Tags,
        ) => {
            format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login': denied: {registry}"
            )
        }
        _ => return error.into(),
    };
    Error { message: text, ..Error::from(error) }
}
