//! The engine as one value: its parts, opened bottom-up and complete.

use std::sync::Arc;

use capsa_image::registry::{Client as Registries, RegistryConfig};
use capsa_runtime::cgroup::Hierarchies;
use capsa_store::Store;

use crate::container::filters::Filters;
use crate::container::registry::Registry;
use crate::container::spares::Spares;
use crate::container::{Containers, recover};
use crate::events::Events;
use crate::execs::Execs;
use crate::image_ops::ImageOps;
use crate::images::Images;
use crate::init_layer::InitLayer;
use crate::instance::Instance;
use crate::network::NetworkSide;
use crate::networks::Networks;
use crate::options::{EngineConfig, InfoView};
use crate::volumes::Volumes;
use crate::world::World;
use crate::{Error, Result, info};

/// A handle on one engine; clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    world: Arc<World>,
    containers: Containers,
    execs: Execs,
    images: ImageOps,
    volumes: Volumes,
    networks: Networks,
}

impl Engine {
    /// Opens the state under the data root, takes over running containers and repairs what
    /// a crash left.
    ///
    /// # Errors
    /// When the data root is in use or unreadable, or the host's network can't be set up.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        make_private(&config.data_root)?;
        make_private(&config.exec_root)?;
        make_private(&config.exec_root.join("containers"))?;
        let hierarchies = Hierarchies::discover()?;
        if hierarchies.is_pure_v2() {
            hierarchies.make_room()?;
        }
        let store = Store::open(&config.data_root)?;
        let instance = Instance::take(&config.data_root)?;
        let networks = NetworkSide::open(&config, &instance, &store)?;
        let world = Arc::new(World {
            images: Images::new(store.clone(), registries(&config)),
            init_layer: InitLayer::open(&store)?,
            config,
            instance,
            store,
            networks,
            events: Events::default(),
            registry: Registry::default(),
            filters: Filters::default(),
            spares: Arc::new(Spares::new()?),
        });
        recover::recover(&world).await?;
        world.spares.refill();
        let parts = Parts {
            containers: Containers::new(Arc::clone(&world)),
            execs: Execs::new(Arc::clone(&world)),
            images: ImageOps::new(Arc::clone(&world)),
            volumes: Volumes::new(Arc::clone(&world)),
            networks: Networks::new(Arc::clone(&world)),
            world,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Containers.
    pub fn containers(&self) -> &Containers {
        &self.parts.containers
    }

    /// Further processes in containers.
    pub fn execs(&self) -> &Execs {
        &self.parts.execs
    }

    /// Images.
    pub fn images(&self) -> &ImageOps {
        &self.parts.images
    }

    /// Volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.parts.volumes
    }

    /// Networks.
    pub fn networks(&self) -> &Networks {
        &self.parts.networks
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.parts.world.events
    }

    /// Facts.
    pub fn info(&self) -> InfoView {
        info::gather(&self.parts.world)
    }

    /// Lets go: running containers go on; with none left, what is ours in the network and
    /// the cgroups is removed, so that the host is as before.
    pub async fn shutdown(&self) {
        let world = &self.parts.world;
        world.spares.close();
        let runs = world.registry.all().iter().any(|handle| handle.record().live.pid != 0);
        if runs {
            return;
        }
        world.networks.teardown();
        let parent = world.instance.cgroup_parent();
        let removed =
            capsa_runtime::cgroup::Cgroup::open(&parent).and_then(|cgroup| cgroup.remove());
        if let Err(error) = removed {
            tracing::warn!(%error, "parent cgroup left behind");
        }
        if let Err(error) = world.store.flush_trash() {
            tracing::warn!(%error, "removed files left behind, the next start removes them");
        }
    }
}

/// The way to registries under the settings of the engine.
fn registries(config: &EngineConfig) -> Registries {
    Registries::new(RegistryConfig {
        insecure: config.insecure_registries.clone(),
        mirrors: config.registry_mirrors.clone(),
        ..RegistryConfig::default()
    })
}

fn make_private(dir: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::kernel(format!("directory {}: {error}", dir.display())))
}
