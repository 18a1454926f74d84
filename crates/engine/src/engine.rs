//! The engine as one value: its parts, opened bottom-up and complete.

use std::sync::Arc;

use crate::Result;
use crate::container::Containers;
use crate::events::Events;
use crate::execs::Execs;
use crate::image_ops::ImageOps;
use crate::networks::Networks;
use crate::options::{EngineConfig, InfoView};
use crate::volumes::Volumes;

/// A handle on one engine; clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    containers: Containers,
    execs: Execs,
    images: ImageOps,
    volumes: Volumes,
    networks: Networks,
    events: Events,
}

#[expect(clippy::unused_async, unused_variables, reason = "signatures first")]
impl Engine {
    /// Opens the state under the data root, takes over running containers and repairs what a crash left.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let parts = Parts {
            containers: Containers {},
            execs: Execs {},
            images: ImageOps {},
            volumes: Volumes {},
            networks: Networks {},
            events: Events::default(),
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
        &self.parts.events
    }

    /// Facts.
    pub fn info(&self) -> InfoView {
        InfoView::default()
    }

    /// Lets go: running containers go on; with none left, bridge and firewall table are removed.
    pub async fn shutdown(&self) {}
}
