//! What is in an image, layer by layer, and what differs between two.
//!
//! The layers are held while they are read, so an image may be removed meanwhile.

use capsa_image::{Difference, Hidden, LayerEffect, Merged};
use capsa_oci::Digest;
use capsa_store::Lease;
use capsa_sys::root::RootDir;

use super::Images;
use crate::Result;

/// Hidden paths shown of one image.
const LARGEST: usize = 20;

/// An image by its layers.
#[derive(Clone, Debug)]
pub struct TreeView {
    /// Its id.
    pub id: Digest,
    /// Bytes of all layers.
    pub size: u64,
    /// Bytes of them that a container can't see: replaced or deleted by a higher layer.
    pub wasted: u64,
    /// Top first.
    pub layers: Vec<TreeLayer>,
    /// Where most is wasted, largest first.
    pub largest: Vec<Hidden>,
}

/// One layer of an image.
#[derive(Clone, Debug)]
pub struct TreeLayer {
    /// Of its plain tar.
    pub diff_id: Option<Digest>,
    /// Bytes.
    pub size: u64,
    /// The instruction that made it.
    pub created_by: String,
    /// What it does to those below.
    pub effect: LayerEffect,
}

impl Images {
    /// An image by its layers.
    ///
    /// # Errors
    /// `NotFound`, or a layer can't be read.
    pub fn tree(&self, key: &str) -> Result<TreeView> {
        let id = self.resolve(key)?;
        let row = self.row(&id)?;
        let config = self.config(&id)?;
        let (merged, _held) = self.merged(&id)?;
        let mut steps = config.history.iter().filter(|step| !step.empty_layer);
        let mut layers = Vec::new();
        for (number, effect) in merged.effects().iter().enumerate() {
            let step = steps.next().and_then(|step| step.created_by.clone());
            let chain = row.layers.get(number);
            let size = chain.map(|chain| self.store.layer_size(chain)).transpose()?.flatten();
            layers.push(TreeLayer {
                diff_id: config.rootfs.diff_ids.get(number).cloned(),
                size: size.unwrap_or(0),
                created_by: step.unwrap_or_default(),
                effect: *effect,
            });
        }
        layers.reverse();
        Ok(TreeView {
            id,
            size: row.size,
            wasted: layers.iter().map(|layer| layer.effect.hidden_bytes).sum(),
            layers,
            largest: merged.most_hidden(LARGEST),
        })
    }

    /// What differs from the first image to the second, sorted by path.
    ///
    /// # Errors
    /// As [`Self::tree`].
    pub fn differences(&self, from: &str, to: &str) -> Result<Vec<Difference>> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        if from == to {
            return Ok(Vec::new());
        }
        let ((from, _held), (to, _also_held)) = (self.merged(&from)?, self.merged(&to)?);
        Ok(from.differences(&to)?)
    }

    fn merged(&self, id: &Digest) -> Result<(Merged, Lease)> {
        let mut lease = self.store.lease();
        for chain in &self.row(id)?.layers {
            lease.hold_layer(chain)?;
        }
        let paths = self.rootfs_layers(id)?;
        let roots = paths.iter().rev().map(|path| Ok(RootDir::open(path)?));
        Ok((Merged::read(roots.collect::<Result<_>>()?)?, lease))
    }
}
