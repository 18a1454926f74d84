//! Volumes: directories that outlive containers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use capsa_store::{Durability, VolumeRow};
use serde::{Deserialize, Serialize};

use crate::options::{Pruned, VolumeRequest};
use crate::view::VolumeView;
use crate::world::World;
use crate::{Error, Result, clock, id};

/// What is kept of a volume beside its name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeBody {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Made without a name.
    pub anonymous: bool,
}

/// All volumes of one engine.
#[derive(Clone, Debug)]
pub struct Volumes {
    world: Arc<World>,
}

impl VolumeBody {
    /// The record as text.
    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::kernel(format!("volume record: {error}")))
    }

    /// A record that can't be read says nothing.
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Volumes {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a volume; one of that name that exists is returned as it is.
    pub async fn create(&self, request: VolumeRequest) -> Result<VolumeView> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {}: plugin \"{}\" not found",
                request.driver, request.driver
            )));
        }
        if !request.options.is_empty() {
            return Err(Error::unavailable(
                "options of the local volume driver (type, o, device) are not built yet",
            ));
        }
        let anonymous = request.name.is_empty();
        let name = if anonymous { id::random_id()? } else { request.name };
        check_name(&name)?;
        let body = VolumeBody { labels: request.labels, options: request.options, anonymous };
        let row =
            VolumeRow { name: name.clone(), created_ns: clock::now_ns(), body: body.to_json()? };
        if tokio::task::block_in_place(|| self.world.store.make_volume(&row, Durability::Durable))?
        {
            self.event("create", &name);
        }
        self.inspect(&name)
    }

    /// Every volume, by name.
    pub fn list(&self) -> Result<Vec<VolumeView>> {
        self.world.store.volumes()?.iter().map(|row| self.view(row)).collect()
    }

    /// One volume.
    pub fn inspect(&self, name: &str) -> Result<VolumeView> {
        match self.world.store.volume(name)? {
            Some(row) => self.view(&row),
            None => Err(Error::not_found(format!("get {name}: no such volume"))),
        }
    }

    /// Ids of the containers that use it.
    pub fn users(&self, name: &str) -> Vec<String> {
        let records = self.world.registry.all().into_iter().map(|handle| handle.record());
        records
            .filter(|record| record.volumes().any(|used| used == name))
            .map(|record| record.id.clone())
            .collect()
    }

    /// Removes one that no container uses; a missing one is no error when `force`.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        if self.world.store.volume(name)?.is_none() {
            return if force { Ok(()) } else { self.inspect(name).map(drop) };
        }
        let removed = tokio::task::block_in_place(|| self.world.store.remove_volume(name));
        match removed {
            Ok(_) => {
                self.event("destroy", name);
                Ok(())
            }
            Err(capsa_store::Error::InUse { by, .. }) => Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                by.join(", ")
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes unused volumes for which `choose` says so.
    pub async fn prune(&self, choose: impl Fn(&VolumeView) -> bool + Send) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for (name, bytes) in self.prunable(choose, &HashSet::new())? {
            if self.remove(&name, false).await.is_ok() {
                pruned.removed.push(name);
                pruned.bytes += bytes;
            }
        }
        Ok(pruned)
    }

    /// What [`Self::prune`] would remove if the containers `gone` were removed before.
    pub fn rehearse_prune(
        &self,
        choose: impl Fn(&VolumeView) -> bool,
        gone: &HashSet<String>,
    ) -> Result<Pruned> {
        Ok(self.prunable(choose, gone)?.into_iter().collect())
    }

    /// Bytes of a volume's files.
    pub fn size(&self, name: &str) -> Result<u64> {
        Ok(tokio::task::block_in_place(|| self.world.store.volume_size(name))?)
    }

    fn prunable(
        &self,
        choose: impl Fn(&VolumeView) -> bool,
        gone: &HashSet<String>,
    ) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for volume in self.list()? {
            if choose(&volume) && self.users(&volume.name).iter().all(|user| gone.contains(user)) {
                let bytes = self.size(&volume.name)?;
                found.push((volume.name, bytes));
            }
        }
        Ok(found)
    }

    fn view(&self, row: &VolumeRow) -> Result<VolumeView> {
        let body = VolumeBody::parse(&row.body);
        Ok(VolumeView {
            name: row.name.clone(),
            mountpoint: self.world.store.volume_dir(&row.name)?,
            created_ns: row.created_ns,
            labels: body.labels,
            options: body.options,
            anonymous: body.anonymous,
        })
    }

    fn event(&self, action: &str, name: &str) {
        let driver = [("driver".to_owned(), "local".to_owned())].into();
        self.world.events.emit("volume", action, name, driver);
    }
}

fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() >= 2 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_are_dockers() {
        assert!(check_name("data_1.x-y").is_ok());
        for bad in ["", "a", "../x", "-x", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
