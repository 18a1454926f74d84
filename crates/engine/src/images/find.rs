//! Which image a key means: an id, the start of one, or a name.

use capsa_oci::{Digest, Reference};

use super::Images;
use crate::{Error, Result};

impl Images {
    /// Finds by full id (with or without `sha256:`), name, or unique id prefix.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` for what is neither.
    pub(crate) fn find(&self, key: &str) -> Result<Digest> {
        let hex = key.strip_prefix("sha256:").unwrap_or(key);
        if let Ok(id) = Digest::from_hex(hex) {
            return match self.store.image(&id)? {
                Some(_) => Ok(id),
                None => Err(missing(key)),
            };
        }
        let by_name = Reference::parse(key);
        if let Ok(reference) = &by_name
            && let Some(id) = self.by_reference(reference)?
        {
            return Ok(id);
        }
        let is_prefix =
            !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_prefix && let Some(id) = self.store.image_by_prefix(hex)? {
            return Ok(id);
        }
        match by_name {
            Ok(reference) => Err(missing(&reference.with_default_tag().familiar())),
            Err(error) => Err(Error::invalid(error.to_string())),
        }
    }

    /// The image of a name; by its digest when the name has one.
    pub(super) fn by_reference(&self, reference: &Reference) -> Result<Option<Digest>> {
        let name = reference.clone().with_default_tag();
        if let Some(id) = self.store.tag(&name.canonical())? {
            return Ok(Some(id));
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        for (id, row) in self.store.images()? {
            if row.manifest.as_ref() == Some(digest) || id == *digest {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// Docker's text: its clients look for it before they pull.
pub(super) fn missing(key: &str) -> Error {
    Error::not_found(format!("No such image: {key}"))
}
