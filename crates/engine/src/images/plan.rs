//! What a removal would do, as a list of steps: decided here from what is, done in
//! `remove`. A rehearsal is a plan that nobody applies, so it can't tell another story
//! than the real one.

use std::collections::HashSet;

use capsa_oci::{Digest, Reference};

use super::record::Record;
use super::remove::Pruning;
use super::{Images, familiar};
use crate::image_ops::Removed;
use crate::{Error, Result};

/// One step of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A name goes.
    Untag(String),
    /// An image goes, and these names with it in one step.
    Erase(Digest, Vec<String>),
    /// An image is out of sight until its last container goes.
    Hide(Digest),
    /// A hidden image goes, of which nobody is told any more.
    Drop(Digest),
}

/// How an image is to be removed.
pub(super) struct Removing<'a> {
    /// Also what is in use or has several names.
    pub(super) force: bool,
    /// Parents without a name go along.
    pub(super) prune: bool,
    /// Whether a container runs now.
    pub(super) is_running: &'a dyn Fn(&str) -> bool,
}

impl Step {
    /// What the user is told of it.
    pub(super) fn told(&self) -> Vec<Removed> {
        let untagged = |name: &String| Removed::Untagged(familiar(name));
        let deleted = |id: &Digest| Removed::Deleted(id.to_string());
        match self {
            Self::Untag(name) => vec![untagged(name)],
            Self::Erase(id, names) => names.iter().map(untagged).chain([deleted(id)]).collect(),
            Self::Hide(id) => vec![deleted(id)],
            Self::Drop(_) => Vec::new(),
        }
    }

    /// The image whose row is gone after it.
    pub(super) fn erased(&self) -> Option<&Digest> {
        match self {
            Self::Erase(id, _) | Self::Drop(id) => Some(id),
            Self::Untag(_) | Self::Hide(_) => None,
        }
    }
}

impl Images {
    /// The steps of removing the name `key`, or the image it is the id of.
    pub(super) fn plan_removal(&self, key: &str, how: &Removing<'_>) -> Result<Vec<Step>> {
        let id = self.resolve(key)?;
        let mut names = self.store.tags_of(&id)?;
        let mut steps = Vec::new();
        if Self::is_id(key, &id) {
            if names.len() == 1 {
                self.refuse_in_use(&id, how)?;
                steps.extend(names.drain(..).map(Step::Untag));
            }
        } else {
            let name = Reference::parse(key).map_err(|error| Error::invalid(error.to_string()))?;
            if names.len() == 1 && !how.force {
                self.refuse_last_name(&id, key)?;
            }
            let name = name.with_default_tag().canonical();
            if names.contains(&name) {
                names.retain(|other| *other != name);
                steps.push(Step::Untag(name));
            }
            let users = self.store.containers_of_image(&id)?;
            if users.iter().any(|user| (how.is_running)(user)) || !names.is_empty() {
                return Ok(steps);
            }
        }
        self.plan_deletion(&id, how, names, &mut steps)?;
        Ok(steps)
    }

    /// The steps of removing what no container uses, and hidden images of no container.
    pub(super) fn plan_prune(&self, pruning: &Pruning<'_>) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for view in self.list()? {
            let dangling = view.tags.is_empty() && view.digests.is_empty();
            let used = view.containers > 0 && self.is_used(&view.id, pruning.gone)?;
            if used || !(dangling || pruning.all) || !(pruning.choose)(&view) {
                continue;
            }
            let names = self.store.tags_of(&view.id)?;
            steps.push(Step::Erase(view.id, names));
        }
        steps.extend(self.plan_drop(pruning.gone)?);
        Ok(steps)
    }

    /// Hidden images whose last container has gone.
    pub(super) fn plan_drop(&self, gone: &HashSet<String>) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for (id, row) in self.store.images()? {
            if Record::of(&id, &row)?.hidden && !self.is_used(&id, gone)? {
                steps.push(Step::Drop(id));
            }
        }
        Ok(steps)
    }

    /// Whether a container that isn't gone needs it.
    fn is_used(&self, id: &Digest, gone: &HashSet<String>) -> Result<bool> {
        Ok(self.store.containers_of_image(id)?.iter().any(|user| !gone.contains(user)))
    }

    /// Bytes that are free after these steps.
    pub(super) fn bytes_after(&self, steps: &[Step]) -> Result<u64> {
        let gone: Vec<Digest> = steps.iter().filter_map(Step::erased).cloned().collect();
        Ok(self.store.would_sweep(&gone)?.bytes)
    }

    /// `names` are those that the image still has by then.
    fn plan_deletion(
        &self,
        id: &Digest,
        how: &Removing<'_>,
        names: Vec<String>,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        self.refuse_in_use(id, how)?;
        if !names.is_empty() && !how.force {
            let what = "image is referenced in multiple repositories";
            return Err(conflict(id, "must be forced", what));
        }
        let parent = Record::of(id, &self.row(id)?)?.parent;
        if self.store.containers_of_image(id)?.is_empty() {
            steps.push(Step::Erase(id.clone(), names));
        } else {
            steps.extend(names.into_iter().map(Step::Untag));
            steps.push(Step::Hide(id.clone()));
        }
        match parent {
            Some(parent) if how.prune => self.plan_parents(&parent, steps),
            _ => Ok(()),
        }
    }

    /// Parents without a name go with their child while nobody needs them.
    fn plan_parents(&self, id: &Digest, steps: &mut Vec<Step>) -> Result<()> {
        let mut children = Vec::new();
        for (child, row) in self.store.images()? {
            children.push((child.clone(), Record::of(&child, &row)?.parent));
        }
        let mut gone: HashSet<Digest> = steps.iter().filter_map(Step::erased).cloned().collect();
        let mut next = Some(id.clone());
        while let Some(id) = next.take() {
            let Some((_, parent)) = children.iter().find(|(known, _)| *known == id) else { break };
            let has_child = children
                .iter()
                .any(|(child, parent)| parent.as_ref() == Some(&id) && !gone.contains(child));
            let needed = has_child
                || !self.store.tags_of(&id)?.is_empty()
                || !self.store.containers_of_image(&id)?.is_empty();
            if needed {
                break;
            }
            next.clone_from(parent);
            steps.push(Step::Erase(id.clone(), Vec::new()));
            gone.insert(id);
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

    fn refuse_in_use(&self, id: &Digest, how: &Removing<'_>) -> Result<()> {
        let users = self.store.containers_of_image(id)?;
        if let Some(running) = users.iter().find(|user| (how.is_running)(user)) {
            let what = format!("image is being used by running container {}", short(running));
            return Err(conflict(id, "cannot be forced", &what));
        }
        match users.first() {
            Some(stopped) if !how.force => {
                let what = format!("image is being used by stopped container {}", short(stopped));
                Err(conflict(id, "must be forced", &what))
            }
            _ => Ok(()),
        }
    }
}

fn conflict(id: &Digest, force: &str, what: &str) -> Error {
    Error::conflict(format!("conflict: unable to delete {} ({force}) - {what}", id.short()))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
