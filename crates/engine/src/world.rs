//! The mechanisms that the policy works with, opened once and shared by all parts.
//!
//! Holds no policy state of its own beyond the registry of containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use capsa_runtime::cgroup::Cgroup;
use capsa_store::Store;

use crate::container::filters::Filters;
use crate::container::record::{Places, Record};
use crate::container::registry::Registry;
use crate::container::spares::Spares;
use crate::events::Events;
use crate::images::Images;
use crate::init_layer::InitLayer;
use crate::instance::Instance;
use crate::network::NetworkSide;
use crate::options::EngineConfig;
use crate::view::NetworkFiles;
use crate::{Error, Result};

/// Everything below the policy.
#[derive(Debug)]
pub(crate) struct World {
    /// As given at the start.
    pub config: EngineConfig,
    /// What sets this engine apart.
    pub instance: Instance,
    /// The disk.
    pub store: Store,
    /// Images over the disk.
    pub images: Images,
    /// Mount points under every container.
    pub init_layer: InitLayer,
    /// Networks over the kernel.
    pub networks: NetworkSide,
    /// What happened.
    pub events: Events,
    /// Which containers there are.
    pub registry: Registry,
    /// Compiled syscall filters.
    pub filters: Filters,
    /// Monitors that wait for a container.
    pub spares: Arc<Spares>,
}

impl World {
    /// Tells that `action` happened to a container, with Docker's attributes and `extra`.
    pub(crate) fn container_event(
        &self,
        record: &Record,
        action: &str,
        extra: impl IntoIterator<Item = (String, String)>,
    ) {
        let mut attributes: BTreeMap<String, String> = record.resolved.labels.clone();
        attributes.insert("image".to_owned(), record.spec.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(extra);
        self.events.emit("container", action, &record.id, attributes);
    }

    /// What lies below a container's writable top: the init layer, then its image's
    /// layers, topmost first.
    pub(crate) fn lowers(&self, record: &Record) -> Result<Vec<PathBuf>> {
        let layers = self.images.rootfs_layers(&record.image)?;
        Ok(std::iter::once(self.init_layer.path.clone()).chain(layers).collect())
    }

    /// The cgroup path of a container, the same in every hierarchy.
    pub(crate) fn cgroup_path(&self, record: &Record) -> String {
        let parent = record.spec.resources.cgroup_parent.clone();
        let parent = parent.filter(|parent| !parent.is_empty());
        let parent = parent.unwrap_or_else(|| self.instance.cgroup_parent());
        format!("/{}/{}", parent.trim_matches('/'), record.id)
    }

    /// The cgroup of a running container.
    pub(crate) fn cgroup(&self, record: &Record) -> Result<Cgroup> {
        Cgroup::open(&self.cgroup_path(record)).map_err(|error| Error::kernel(error.to_string()))
    }

    /// Where the run-time files of containers are.
    pub(crate) fn run_dirs(&self) -> PathBuf {
        self.config.exec_root.join("containers")
    }

    /// The run-time files of one container: its monitor's socket, its hosts file.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.run_dirs().join(id)
    }

    /// Where a container's own files are.
    pub(crate) fn places(&self, record: &Record) -> Places {
        let dir = self.store.container_dir(&record.id).unwrap_or_default();
        let log =
            if record.keeps_log(&self.config) { dir.join("log.json") } else { PathBuf::new() };
        let run = self.run_dir(&record.id);
        let files = NetworkFiles {
            hosts: run.join("hosts"),
            hostname: run.join("hostname"),
            resolv_conf: run.join("resolv.conf"),
        };
        Places { log, files }
    }
}
