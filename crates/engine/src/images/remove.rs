//! Taking names and images away, by Docker's rules and in its words.
//!
//! A name goes unless it is the last one of an image that a container needs. An image
//! goes when its last name goes, or by id; by id only when it has at most one name. Force overrides everything but a running container. An image that is
//! deleted while stopped containers need its layers is hidden, and goes with the last
//! of them.

use capsa_oci::{Digest, Reference};

use super::record::Record;
use super::{Images, familiar};
use crate::image_ops::Removed;
use crate::options::Pruned;
use crate::view::ImageView;
use crate::{Error, Result};

/// Which images a prune takes.
pub struct Pruning<'a> {
    /// All unused ones, not only those without a name.
    pub all: bool,
    /// Of those, which.
    pub choose: &'a dyn Fn(&ImageView) -> bool,
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
        let id = self.resolve(key)?;
        let names = self.store.tags_of(&id)?;
        let mut removed = Vec::new();
        if Self::is_id(key, &id) {
            if names.len() == 1 {
                self.refuse_in_use(&id, force, is_running)?;
                self.untag(&names, &mut removed)?;
            }
        } else {
            let name = Reference::parse(key).map_err(|error| Error::invalid(error.to_string()))?;
            if names.len() == 1 && !force {
                self.refuse_last_name(&id, key)?;
            }
            self.untag(&[name.with_default_tag().canonical()], &mut removed)?;
            let used = self.store.containers_of_image(&id)?.iter().any(|user| is_running(user));
            if used || !self.store.tags_of(&id)?.is_empty() {
                return Ok(removed);
            }
        }
        self.delete(&id, force, prune, is_running, &mut removed)?;
        self.sweep()?;
        Ok(removed)
    }

    /// Removes images that no container uses; what is in use stays without a word.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prune(&self, pruning: &Pruning<'_>) -> Result<(Vec<Removed>, Pruned)> {
        let mut removed = Vec::new();
        for view in self.list()? {
            let dangling = view.tags.is_empty() && view.digests.is_empty();
            if view.containers > 0 || !(dangling || pruning.all) || !(pruning.choose)(&view) {
                continue;
            }
            let names = self.store.tags_of(&view.id)?;
            self.untag(&names, &mut removed)?;
            self.erase(&view.id, &mut removed)?;
        }
        self.drop_hidden()?;
        let bytes = self.sweep()?;
        let ids = removed.iter().filter_map(|removed| match removed {
            Removed::Deleted(id) => Some(id.clone()),
            Removed::Untagged(_) => None,
        });
        let pruned = Pruned { removed: ids.collect(), bytes };
        Ok((removed, pruned))
    }

    /// Removes hidden images whose last container has gone; to be called after a
    /// container is removed. Returns at once when there are none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_hidden(&self) -> Result<()> {
        let mut gone = false;
        for (id, row) in self.store.images()? {
            if Record::of(&id, &row)?.hidden && self.store.containers_of_image(&id)?.is_empty() {
                self.erase(&id, &mut Vec::new())?;
                gone = true;
            }
        }
        if gone {
            self.sweep()?;
        }
        Ok(())
    }

    fn refuse_last_name(&self, id: &Digest, key: &str) -> Result<()> {
        let Some(container) = self.store.containers_of_image(id)?.into_iter().next() else {
            return Ok(());
        };
        let (container, image) = (short(&container), id.short());
        Err(Error::conflict(format!(
            "conflict: unable to remove repository reference {key:?} (must force) - container {container} is using its referenced image {image}"
        )))
    }

    fn refuse_in_use(
        &self,
        id: &Digest,
        force: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let users = self.store.containers_of_image(id)?;
        if let Some(running) = users.iter().find(|user| is_running(user)) {
            let what = format!("image is being used by running container {}", short(running));
            return Err(conflict(id, "cannot be forced", &what));
        }
        match users.first() {
            Some(stopped) if !force => {
                let what = format!("image is being used by stopped container {}", short(stopped));
                Err(conflict(id, "must be forced", &what))
            }
            _ => Ok(()),
        }
    }

    fn delete(
        &self,
        id: &Digest,
        force: bool,
        prune: bool,
        is_running: &dyn Fn(&str) -> bool,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        self.refuse_in_use(id, force, is_running)?;
        let names = self.store.tags_of(id)?;
        if !names.is_empty() && !force {
            return Err(conflict(
                id,
                "must be forced",
                "image is referenced in multiple repositories",
            ));
        }
        self.untag(&names, removed)?;
        let parent = Record::of(id, &self.row(id)?)?.parent;
        if self.store.containers_of_image(id)?.is_empty() {
            self.erase(id, removed)?;
        } else {
            self.hide(id, removed)?;
        }
        match parent {
            Some(parent) if prune => self.prune_parent(&parent, removed),
            _ => Ok(()),
        }
    }

    /// Parents without a name go with their child while nobody needs them.
    fn prune_parent(&self, id: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
        let mut next = Some(id.clone());
        while let Some(id) = next.take() {
            let Some(row) = self.store.image(&id)? else { break };
            let mut children = self.store.images()?.into_iter();
            let has_child = children.try_fold(false, |found, (child, row)| {
                Ok::<_, Error>(found || Record::of(&child, &row)?.parent.as_ref() == Some(&id))
            })?;
            let needed = has_child
                || !self.store.tags_of(&id)?.is_empty()
                || !self.store.containers_of_image(&id)?.is_empty();
            if needed {
                break;
            }
            next = Record::of(&id, &row)?.parent;
            self.erase(&id, removed)?;
        }
        Ok(())
    }

    fn untag(&self, names: &[String], removed: &mut Vec<Removed>) -> Result<()> {
        for name in names {
            if self.store.remove_tag(name)?.is_some() {
                removed.push(Removed::Untagged(familiar(name)));
            }
        }
        Ok(())
    }

    fn erase(&self, id: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
        self.store.remove_image(id)?;
        if let Ok(mut cache) = self.shared.layers.lock() {
            cache.remove(id);
        }
        if let Ok(mut cache) = self.shared.configs.lock() {
            cache.remove(id);
        }
        removed.push(Removed::Deleted(id.to_string()));
        Ok(())
    }

    fn hide(&self, id: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
        let mut row = self.row(id)?;
        let mut record = Record::of(id, &row)?;
        record.hidden = true;
        row.body = record.body()?;
        self.store.put_image(id, &row)?;
        removed.push(Removed::Deleted(id.to_string()));
        Ok(())
    }
}

fn conflict(id: &Digest, force: &str, what: &str) -> Error {
    Error::conflict(format!("conflict: unable to delete {} ({force}) - {what}", id.short()))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
