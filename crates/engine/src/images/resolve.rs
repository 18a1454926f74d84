//! From what a user writes to an image: a name first, then an id or its prefix.

use capsa_oci::{Digest, Reference};

use super::record::Record;
use super::{Images, no_such_image};
use crate::Result;

impl Images {
    /// The id of the image that `key` means: `name[:tag]`, `name@digest`, an id, or a
    /// unique prefix of one.
    ///
    /// # Errors
    /// `NotFound` with Docker's text, `InvalidInput` for an ambiguous prefix.
    pub fn resolve(&self, key: &str) -> Result<Digest> {
        let reference = Reference::parse(key).ok().map(Reference::with_default_tag);
        if let Some(reference) = &reference
            && let Some(id) = self.by_name(reference)?
        {
            return Ok(id);
        }
        if let Some(id) = self.store.image_by_prefix(key)?
            && !self.is_hidden(&id)?
        {
            return Ok(id);
        }
        Err(no_such_image(&reference.map_or_else(|| key.to_owned(), |name| name.familiar())))
    }

    /// Whether `key` reached `id` as an id rather than as a name.
    pub(super) fn is_id(key: &str, id: &Digest) -> bool {
        let hex = key.strip_prefix("sha256:").unwrap_or(key);
        !hex.is_empty() && id.hex().starts_with(hex)
    }

    fn by_name(&self, reference: &Reference) -> Result<Option<Digest>> {
        let Some(digest) = reference.digest() else {
            return Ok(self.store.tag(&reference.canonical())?);
        };
        self.by_digest(reference, digest)
    }

    /// A digest is what a registry had for a name, a manifest's, or an image's id; the image
    /// must have a name in that repository.
    fn by_digest(&self, reference: &Reference, digest: &Digest) -> Result<Option<Digest>> {
        let repository = |text: &str| {
            Reference::parse(text).is_ok_and(|name| {
                name.domain() == reference.domain() && name.path() == reference.path()
            })
        };
        let exact = format!("{}@{digest}", reference.familiar_name());
        for (id, row) in self.store.images()? {
            let record = Record::of(&id, &row)?;
            let fetched = record.repo_digests.contains(&exact);
            if !fetched && row.manifest.as_ref() != Some(digest) && id != *digest {
                continue;
            }
            let named = fetched
                || record.repo_digests.iter().any(|name| repository(name))
                || self.store.tags_of(&id)?.iter().any(|name| repository(name));
            if named && !record.hidden {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn is_hidden(&self, id: &Digest) -> Result<bool> {
        let Some(row) = self.store.image(id)? else { return Ok(true) };
        Ok(Record::of(id, &row)?.hidden)
    }
}
