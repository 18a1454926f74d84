//! Volumes: directories that outlive containers.

use crate::options::{Pruned, VolumeRequest};
use crate::view::VolumeView;
use crate::{Error, Result};

/// All volumes of one engine.
#[derive(Debug)]
pub struct Volumes {}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl Volumes {
    /// Makes a volume; one of that name that exists is returned as it is.
    pub async fn create(&self, request: VolumeRequest) -> Result<VolumeView> {
        Err(Error::unavailable("volumes are not built yet"))
    }
    /// Every volume.
    pub fn list(&self) -> Result<Vec<VolumeView>> {
        Ok(Vec::new())
    }
    /// One volume.
    pub fn inspect(&self, name: &str) -> Result<VolumeView> {
        Err(Error::unavailable("volumes are not built yet"))
    }
    /// Ids of the containers that use it.
    pub fn users(&self, name: &str) -> Vec<String> {
        Vec::new()
    }
    /// Removes one that no container uses; a missing one is no error when `force`.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        Err(Error::unavailable("volumes are not built yet"))
    }
    /// Removes unused volumes for which `choose` says so.
    pub async fn prune(&self, choose: impl Fn(&VolumeView) -> bool + Send) -> Result<Pruned> {
        Err(Error::unavailable("volumes are not built yet"))
    }
}
