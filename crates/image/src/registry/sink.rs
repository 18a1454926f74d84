//! A repository of a registry, as the sink of a copy.
//!
//! A blob that is there is not sent, one that another repository of the registry has is
//! mounted from it. The image follows its layers: first the config, then the manifest,
//! byte for byte under its tag.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use capsa_oci::{Digest, Reference};
use ureq::http::Method;

use super::session::{Call, Outcome, Session};
use super::upload::{Upload, location};
use super::wire::{Payload, header};
use super::{Access, Client, Step, endpoint};
use crate::{Blob, Image, Layer, Result, Sink};

const LANES: usize = 3;

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The repository had it.
    Present,
    /// It was taken over from this repository.
    Mounted(String),
    /// It was sent.
    Pushed,
}

/// Told what became of a layer.
pub type OnSent<'a> = dyn Fn(&Layer, &Sent) + Sync + 'a;

/// Takes images into one repository, under one tag.
pub struct RegistrySink<'a> {
    session: Session,
    tag: String,
    mount_from: Vec<String>,
    on_sent: &'a OnSent<'a>,
    /// Uploads that were begun when a mount failed.
    begun: Mutex<HashMap<Digest, String>>,
}

impl Client {
    /// The repository of `reference` as a sink for an image under its tag (`latest` if
    /// it has none). `mount_from` are repositories of the same registry (paths, without
    /// the domain) that may have its layers.
    ///
    /// # Errors
    /// [`crate::Error::Registry`] when the registry can't be reached.
    pub fn push<'a>(
        &self,
        reference: &Reference,
        access: &Access,
        mount_from: Vec<String>,
        on_sent: &'a OnSent<'a>,
    ) -> Result<RegistrySink<'a>> {
        let origin = endpoint::origin(reference.domain());
        let path = reference.path();
        let session = Session::new(self, &origin, path, "pull,push", &mount_from, access)?;
        let tag = reference.tag().unwrap_or("latest").to_owned();
        let begun = Mutex::default();
        Ok(RegistrySink { session, tag, mount_from, on_sent, begun })
    }
}

impl Sink for RegistrySink<'_> {
    fn lanes(&self) -> usize {
        LANES
    }

    fn has_layer(&self, layer: &Layer) -> Result<bool> {
        let digest = &layer.blob.digest;
        if has_blob(&self.session, digest)? {
            (self.on_sent)(layer, &Sent::Present);
            return Ok(true);
        }
        for from in &self.mount_from {
            if self.mount(digest, from)? {
                (self.on_sent)(layer, &Sent::Mounted(from.clone()));
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn layer(&self, layer: &Layer, blob: &Blob<'_>) -> Result<()> {
        let open = |offset| blob.open(offset);
        let digest = &layer.blob.digest;
        let location = self.begun().remove(digest);
        let size = layer.blob.size;
        Upload { session: &self.session, digest, size, open: &open, location }.run()?;
        (self.on_sent)(layer, &Sent::Pushed);
        Ok(())
    }

    fn image(&self, image: &Image) -> Result<()> {
        if !has_blob(&self.session, &image.id)? {
            let config: &[u8] = &image.config;
            let open = |offset: u64| -> Result<Box<dyn Read + Send + '_>> {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(Box::new(config.get(start..).unwrap_or(&[])))
            };
            let (digest, size) = (&image.id, config.len() as u64);
            Upload { session: &self.session, digest, size, open: &open, location: None }.run()?;
        }
        Ok(put_manifest(&self.session, image, &self.tag)?)
    }
}

impl RegistrySink<'_> {
    /// True if it was taken over; if not, the registry usually has begun an upload.
    fn mount(&self, digest: &Digest, from: &str) -> Outcome<bool> {
        let step = Step::Upload(digest.clone());
        let url = self.session.url("blobs/uploads/");
        let url = super::url::with_query(&url, "mount", digest.as_str());
        let url = super::url::with_query(&url, "from", from);
        let mut call = Call::new(Method::POST, url, step.clone());
        let answer = self.session.send(&mut call)?;
        match answer.status().as_u16() {
            201 => Ok(true),
            202 => {
                if let Ok(location) = location(&self.session, &answer, &step) {
                    self.begun().insert(digest.clone(), location);
                }
                Ok(false)
            }
            // It may not know that repository, or not let us read it.
            _ => Ok(false),
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, String>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RegistrySink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrySink").field("tag", &self.tag).finish_non_exhaustive()
    }
}

fn has_blob(session: &Session, digest: &Digest) -> Outcome<bool> {
    let step = Step::Upload(digest.clone());
    let mut call = Call::new(Method::HEAD, session.url(&format!("blobs/{digest}")), step.clone());
    let answer = session.send(&mut call)?;
    match answer.status().as_u16() {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(session.refused(&step, answer)),
    }
}

fn put_manifest(session: &Session, image: &Image, name: &str) -> Outcome<()> {
    let step = Step::PutManifest(name.to_owned());
    let mut call = Call::new(Method::PUT, session.url(&format!("manifests/{name}")), step.clone())
        .header("content-type", image.manifest_type.clone())
        .payload(Payload::Bytes(&image.manifest));
    let answer = session.expect(&mut call, &[201, 200, 202, 204])?;
    let told = header(&answer, "docker-content-digest").and_then(|d| d.parse::<Digest>().ok());
    match told {
        Some(told) if told != image.manifest_digest => {
            let text = format!("it keeps {told} instead of {}", image.manifest_digest);
            Err(session.invalid(&step, text))
        }
        _ => Ok(()),
    }
}
