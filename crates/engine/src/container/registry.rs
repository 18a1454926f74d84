//! Which containers there are: a cache of the store, and how keys find them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::handle::Handle;
use crate::{Error, Result};

/// Handles by id and ids by name.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_id: BTreeMap<String, Handle>,
    names: HashMap<String, String>,
}

impl Registry {
    /// Takes `name` for `id`, so that nobody else can.
    ///
    /// # Errors
    /// `Conflict` with Docker's text when it is taken.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut maps = self.lock();
        if let Some(holder) = maps.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        maps.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Gives a name back.
    pub(crate) fn release(&self, name: &str) {
        self.lock().names.remove(name);
    }

    /// Makes a container known.
    pub(crate) fn insert(&self, id: &str, handle: Handle) {
        self.lock().by_id.insert(id.to_owned(), handle);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &str, name: &str) {
        let mut maps = self.lock();
        maps.by_id.remove(id);
        maps.names.remove(name);
    }

    /// Every handle.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Finds by full id, name (with or without a slash), or unique id prefix, in this order.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` when a prefix fits several.
    pub(crate) fn find(&self, key: &str) -> Result<Handle> {
        let maps = self.lock();
        let name = key.strip_prefix('/').unwrap_or(key);
        let by_name = || maps.names.get(name).and_then(|id| maps.by_id.get(id));
        if let Some(handle) = maps.by_id.get(key).or_else(by_name) {
            return Ok(handle.clone());
        }
        let missing = || Error::not_found(format!("No such container: {key}"));
        if key.is_empty() {
            return Err(missing());
        }
        let mut fitting =
            maps.by_id.range(key.to_owned()..).take_while(|(id, _)| id.starts_with(key));
        let (_, first) = fitting.next().ok_or_else(missing)?;
        match fitting.next() {
            None => Ok(first.clone()),
            Some(_) => {
                Err(Error::invalid(format!("Multiple IDs found with provided prefix: {key}")))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
