//! Networks, as callers see them: the default bridge, host, none, and bridges that
//! users make.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::block_in_place;

use crate::network::Network;
use crate::options::{ConnectRequest, NetworkRequest, Pruned};
use crate::view::NetworkView;
use crate::world::World;
use crate::{Class, Error, Result};

/// Networks that are no bridges: name, driver, and an id that never changes.
const BUILT_IN: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

/// All networks of one engine.
#[derive(Debug)]
pub struct Networks {
    world: Arc<World>,
}

impl Networks {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a bridge network; its id.
    pub async fn create(&self, request: NetworkRequest) -> Result<String> {
        let name = request.name.clone();
        let id = block_in_place(|| self.world.networks.create(request))?;
        self.event("create", &id, &name);
        Ok(id)
    }

    /// Every network.
    pub fn list(&self) -> Result<Vec<NetworkView>> {
        let mut views: Vec<NetworkView> =
            self.world.networks.all().iter().map(|network| self.view(network)).collect();
        views.extend(BUILT_IN.iter().map(|(name, driver)| built_in(name, driver)));
        Ok(views)
    }

    /// One network by name, id or unique id prefix.
    pub fn inspect(&self, key: &str) -> Result<NetworkView> {
        for (name, driver) in BUILT_IN {
            let view = built_in(name, driver);
            if key == name || (key.len() >= 3 && view.id.starts_with(key)) {
                return Ok(view);
            }
        }
        Ok(self.view(&self.world.networks.find(key)?))
    }

    /// Removes one that has no endpoint.
    pub async fn remove(&self, key: &str) -> Result<()> {
        if BUILT_IN.iter().any(|(name, _)| *name == key) {
            return Err(Error::new(
                Class::Denied,
                format!("{key} is a pre-defined network and cannot be removed"),
            ));
        }
        let network = block_in_place(|| self.world.networks.remove(key))?;
        self.event("destroy", &network.id, &network.name);
        Ok(())
    }

    /// Attaches a container.
    pub async fn connect(&self, key: &str, container: &str, _: ConnectRequest) -> Result<()> {
        self.inspect(key)?;
        self.world.registry.find(container)?;
        Err(Error::unavailable("connecting a container to a further network is not built yet")
            .with_hint("choose its network with --network when it is created"))
    }

    /// Detaches a container.
    pub async fn disconnect(&self, key: &str, container: &str, _force: bool) -> Result<()> {
        self.inspect(key)?;
        self.world.registry.find(container)?;
        Err(Error::unavailable("disconnecting a container from a network is not built yet"))
    }

    /// Removes unused networks for which `choose` says so.
    pub async fn prune(&self, choose: impl Fn(&NetworkView) -> bool + Send) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for network in self.prunable(choose, &HashSet::new()) {
            if self.remove(&network.id).await.is_ok() {
                pruned.removed.push(network.name);
            }
        }
        Ok(pruned)
    }

    /// What [`Self::prune`] would remove if the containers `gone` were removed before.
    pub fn rehearse_prune(
        &self,
        choose: impl Fn(&NetworkView) -> bool,
        gone: &HashSet<String>,
    ) -> Pruned {
        let names = self.prunable(choose, gone).into_iter().map(|network| (network.name, 0));
        names.collect()
    }

    fn prunable(
        &self,
        choose: impl Fn(&NetworkView) -> bool,
        gone: &HashSet<String>,
    ) -> Vec<Network> {
        let mut found = self.world.networks.all();
        found.retain(|network| {
            network.name != crate::network::DEFAULT
                && !self.is_asked_for(network, gone)
                && choose(&self.view(network))
        });
        found
    }

    /// Whether any container, running or not, belongs on it.
    fn is_asked_for(&self, network: &Network, gone: &HashSet<String>) -> bool {
        self.world.registry.all().into_iter().any(|handle| {
            let record = handle.record();
            match &record.spec.network.mode {
                crate::spec::NetworkMode::Named(key) => {
                    !gone.contains(&record.id)
                        && (*key == network.name || network.id.starts_with(key.as_str()))
                }
                _ => false,
            }
        })
    }

    fn view(&self, network: &Network) -> NetworkView {
        let mut containers = Vec::new();
        for handle in self.world.registry.all() {
            let record = handle.record();
            for endpoint in record.live.endpoints.iter().filter(|e| e.network_id == network.id) {
                containers.push((record.id.clone(), record.name.clone(), endpoint.clone()));
            }
        }
        let body = &network.body;
        NetworkView {
            name: network.name.clone(),
            id: network.id.clone(),
            driver: "bridge".to_owned(),
            subnet: Some(body.subnet.to_string()),
            gateway: Some(body.gateway),
            bridge: Some(body.bridge.clone()),
            internal: body.internal,
            created_ns: network.created_ns,
            labels: body.labels.clone(),
            options: body.options.clone(),
            containers,
        }
    }

    fn event(&self, action: &str, id: &str, name: &str) {
        let attributes = [("name", name), ("type", "bridge")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.world.events.emit("network", action, id, attributes.into());
    }
}

fn built_in(name: &str, driver: &str) -> NetworkView {
    NetworkView {
        name: name.to_owned(),
        id: capsa_oci::Digest::sha256(format!("network {name}").as_bytes()).hex().to_owned(),
        driver: driver.to_owned(),
        subnet: None,
        gateway: None,
        bridge: None,
        internal: false,
        created_ns: 0,
        labels: Default::default(),
        options: Default::default(),
        containers: Vec::new(),
    }
}
