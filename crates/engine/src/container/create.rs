//! Making a container: everything that can be wrong is found here, before its start.
//!
//! Files first, the record last: a crash in between leaves a directory without a
//! record, which recovery removes.

use std::sync::Arc;

use capsa_store::{Durability, IdPool, NewContainer};

use super::actor;
use super::intents::Intents;
use super::isolation::{self, UserNamespace};
use super::mounts;
use super::record::{Live, Record, VERSION};
use super::resolve::resolve;
use crate::instance::RANGES;
use crate::options::Created;
use crate::spec::ContainerSpec;
use crate::world::World;
use crate::{Error, Result, clock, id};

/// Makes the container that `spec` asks for.
pub(crate) fn create(world: &Arc<World>, spec: ContainerSpec) -> Result<Created> {
    let image = world.images.resolve(&spec.image)?;
    let config = world.images.config(&image)?.config.clone().unwrap_or_default();
    let id = id::random_id()?;
    let resolved = resolve(&spec, &config, &id)?;
    let name = reserve_name(world, spec.name.as_deref(), &id)?;
    let mut record = Record {
        version: VERSION,
        id,
        name,
        image,
        created_ns: clock::now_ns(),
        spec,
        resolved,
        mounts: Vec::new(),
        id_range: None,
        live: Live::default(),
    };
    let intents = Intents::new(world.run_dir(&record.id));
    if let Err(error) = make(world, &mut record, &intents) {
        unmake(world, &record, &intents);
        return Err(error);
    }
    intents.forget();
    let created = Created { id: record.id.clone(), warnings: Vec::new() };
    world.container_event(&record, "create", []);
    actor::spawn(world, record, None, None);
    Ok(created)
}

fn reserve_name(world: &World, asked: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = asked {
        world.registry.reserve(name, id)?;
        return Ok(name.to_owned());
    }
    for attempt in 0..6 {
        let name = id::random_name(attempt)?;
        if world.registry.reserve(&name, id).is_ok() {
            return Ok(name);
        }
    }
    world.registry.reserve(&id[..12], id)?;
    Ok(id[..12].to_owned())
}

fn make(world: &World, record: &mut Record, intents: &Intents) -> Result<()> {
    let durability = durability(&record.spec);
    world.store.make_rootfs(&record.id)?;
    let layers = world.images.rootfs_layers(&record.image)?;
    let request = mounts::Request {
        spec: &record.spec,
        resolved: &record.resolved,
        layers: &layers,
        intents,
        durability,
    };
    record.mounts = mounts::prepare(world, &request)?;
    let own = isolation::user_namespace(&record.spec) == UserNamespace::Own;
    let body = serde_json::to_string(&record)
        .map_err(|error| Error::kernel(format!("container record: {error}")))?;
    let row = NewContainer {
        id: record.id.clone(),
        name: record.name.clone(),
        image: record.image.clone(),
        created_ns: record.created_ns,
        pool: own.then(|| IdPool { base: world.instance.first_id(), count: RANGES }),
        volumes: record.volumes().map(str::to_owned).collect(),
        body,
    };
    record.id_range = world.store.insert_container(&row, durability)?;
    Ok(())
}

/// A container that removes itself need not outlive a power cut.
pub(crate) fn durability(spec: &ContainerSpec) -> Durability {
    if spec.auto_remove { Durability::Process } else { Durability::Durable }
}

fn unmake(world: &World, record: &Record, intents: &Intents) {
    world.registry.remove(&record.id, &record.name);
    if let Err(error) = world.store.remove_rootfs(&record.id) {
        tracing::warn!(container = %record.id, %error, "rootfs left behind, recovery will remove it");
    }
    super::remove::volumes_of(world, intents.read().iter().map(String::as_str));
    intents.forget();
}
