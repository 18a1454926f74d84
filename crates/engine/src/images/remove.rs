//! Taking names and images away, by Docker's rules and in its words.
//!
//! A name goes unless it is the last one of an image that a container needs. An image
//! goes when its last name goes, or by id; by id only when it has at most one name.
//! Force overrides everything but a running container. An image that is deleted while
//! stopped containers need its layers is hidden, and goes with the last of them.
//!
//! Which steps that takes is decided in `plan`; here they are done.

use std::collections::HashSet;

use capsa_oci::Digest;
use capsa_store::Error as StoreError;

use super::Images;
use super::plan::{Removing, Step};
use super::record::Record;
use crate::Result;
use crate::image_ops::Removed;
use crate::options::Pruned;
use crate::view::ImageView;

/// Which images a prune takes.
pub struct Pruning<'a> {
    /// All unused ones, not only those without a name.
    pub all: bool,
    /// Of those, which.
    pub choose: &'a dyn Fn(&ImageView) -> bool,
    /// Containers that are taken for gone, in a rehearsal.
    pub gone: &'a HashSet<String>,
}

impl Images {
    /// Takes away the name `key`, or the image it is the id of. `is_running` tells of a
    /// container's id whether it runs now.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` with Docker's text.
    pub fn remove(
        &self,
        key: &str,
        force: bool,
        prune: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Removed>> {
        let steps = self.plan_removal(key, &Removing { force, prune, is_running })?;
        let mut removed = Vec::new();
        for step in &steps {
            self.apply(step, &mut removed)?;
        }
        if steps.iter().any(|step| step.erased().is_some()) {
            self.sweep()?;
        }
        Ok(removed)
    }

    /// What [`Self::remove`] would do now, and the bytes that would then be free.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn rehearse_removal(
        &self,
        key: &str,
        force: bool,
        prune: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<(Vec<Removed>, u64)> {
        let steps = self.plan_removal(key, &Removing { force, prune, is_running })?;
        let frees = steps.iter().any(|step| step.erased().is_some());
        let bytes = if frees { self.bytes_after(&steps)? } else { 0 };
        Ok((steps.iter().flat_map(Step::told).collect(), bytes))
    }

    /// Removes images that no container uses; what is in use stays without a word.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prune(&self, pruning: &Pruning<'_>) -> Result<(Vec<Removed>, Pruned)> {
        let mut removed = Vec::new();
        for step in self.plan_prune(pruning)? {
            self.apply(&step, &mut removed)?;
        }
        let bytes = self.sweep()?;
        Ok(told(removed, bytes))
    }

    /// What [`Self::prune`] would do now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rehearse_prune(&self, pruning: &Pruning<'_>) -> Result<(Vec<Removed>, Pruned)> {
        let steps = self.plan_prune(pruning)?;
        let bytes = self.bytes_after(&steps)?;
        Ok(told(steps.iter().flat_map(Step::told).collect(), bytes))
    }

    /// Removes hidden images whose last container has gone; to be called after a
    /// container is removed. Returns at once when there are none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_hidden(&self) -> Result<()> {
        let steps = self.plan_drop(&HashSet::new())?;
        for step in &steps {
            self.apply(step, &mut Vec::new())?;
        }
        if !steps.is_empty() {
            self.sweep()?;
        }
        Ok(())
    }

    /// Does a step, unless the world has moved on since it was planned: what is gone is
    /// gone, and what is used by now stays.
    pub(super) fn apply(&self, step: &Step, removed: &mut Vec<Removed>) -> Result<()> {
        let done = match step {
            Step::Untag(name) => self.store.remove_tag(name)?.is_some(),
            Step::Erase(id, _) | Step::Drop(id) => match self.store.remove_image(id) {
                Ok(_) => true,
                Err(StoreError::InUse { .. } | StoreError::Missing { .. }) => false,
                Err(error) => return Err(error.into()),
            },
            Step::Hide(id) => self.hide(id)?,
        };
        if !done {
            return Ok(());
        }
        if let Some(id) = step.erased() {
            self.forget(id);
        }
        removed.extend(step.told());
        Ok(())
    }

    fn forget(&self, id: &Digest) {
        if let Ok(mut cache) = self.shared.layers.lock() {
            cache.remove(id);
        }
        if let Ok(mut cache) = self.shared.configs.lock() {
            cache.remove(id);
        }
    }

    fn hide(&self, id: &Digest) -> Result<bool> {
        let Some(mut row) = self.store.image(id)? else { return Ok(false) };
        let mut record = Record::of(id, &row)?;
        record.hidden = true;
        row.body = record.body()?;
        self.store.put_image(id, &row)?;
        Ok(true)
    }
}

fn told(removed: Vec<Removed>, bytes: u64) -> (Vec<Removed>, Pruned) {
    let ids = removed.iter().filter_map(|removed| match removed {
        Removed::Deleted(id) => Some(id.clone()),
        Removed::Untagged(_) => None,
    });
    let pruned = Pruned { removed: ids.collect(), bytes };
    (removed, pruned)
}
