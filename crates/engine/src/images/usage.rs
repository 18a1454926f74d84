//! What images take on disk, layers that several of them have counted once.

use std::collections::HashMap;

use capsa_oci::Digest;

use super::Images;
use crate::Result;

/// Bytes of all unpacked layers, and of those that are in more than one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesUsage {
    /// Every layer once, also those that only hidden images or nobody has.
    pub layers: u64,
    /// Of each image: bytes of its layers that another image has too.
    pub shared: HashMap<Digest, u64>,
}

impl Images {
    /// What images take.
    ///
    /// # Errors
    /// When the store fails.
    pub fn usage(&self) -> Result<ImagesUsage> {
        let references = self.store.layer_references()?;
        let layers = references.iter().map(|(_, size, _)| size).sum();
        let shared: HashMap<_, _> = references
            .into_iter()
            .filter(|(_, _, images)| *images > 1)
            .map(|(chain, size, _)| (chain, size))
            .collect();
        let of = |chains: &[Digest]| chains.iter().filter_map(|chain| shared.get(chain)).sum();
        let images = self.store.images()?.into_iter();
        Ok(ImagesUsage { layers, shared: images.map(|(id, row)| (id, of(&row.layers))).collect() })
    }
}
