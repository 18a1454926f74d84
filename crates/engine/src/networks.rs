//! Networks: the default bridge, host, none, and bridges that users make.

use crate::options::{ConnectRequest, NetworkRequest, Pruned};
use crate::view::NetworkView;
use crate::{Error, Result};

/// All networks of one engine.
#[derive(Debug)]
pub struct Networks {}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl Networks {
    /// Makes a bridge network; its id.
    pub async fn create(&self, request: NetworkRequest) -> Result<String> {
        Err(Error::unavailable("networks are not built yet"))
    }
    /// Every network.
    pub fn list(&self) -> Result<Vec<NetworkView>> {
        Ok(Vec::new())
    }
    /// One network by name, id or unique id prefix.
    pub fn inspect(&self, key: &str) -> Result<NetworkView> {
        Err(Error::unavailable("networks are not built yet"))
    }
    /// Removes one that has no endpoint.
    pub async fn remove(&self, key: &str) -> Result<()> {
        Err(Error::unavailable("networks are not built yet"))
    }
    /// Attaches a container.
    pub async fn connect(&self, key: &str, container: &str, request: ConnectRequest) -> Result<()> {
        Err(Error::unavailable("networks are not built yet"))
    }
    /// Detaches a container.
    pub async fn disconnect(&self, key: &str, container: &str, force: bool) -> Result<()> {
        Err(Error::unavailable("networks are not built yet"))
    }
    /// Removes unused networks for which `choose` says so.
    pub async fn prune(&self, choose: impl Fn(&NetworkView) -> bool + Send) -> Result<Pruned> {
        Err(Error::unavailable("networks are not built yet"))
    }
}
