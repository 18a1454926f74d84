//! Removing a container: the record first, then its files.
//!
//! A crash in between leaves a directory without a record, which recovery removes. The
//! volumes that go with it are marked in the step that removes the record.

use super::actor::Actor;
use super::create::durability;
use super::phase;
use super::record::Record;
use crate::Result;
use crate::view::Phase;
use crate::volumes::VolumeBody;
use crate::world::World;

impl Actor {
    /// Removes a container that does not run, with its anonymous volumes when `volumes`.
    pub(super) fn remove(&mut self, volumes: bool) -> Result<()> {
        phase::may_remove(self.record.live.phase, &self.record.name)?;
        let volumes = if volumes { anonymous(&self.world, &self.record) } else { Vec::new() };
        let durability = durability(&self.record.spec);
        let gone = self.world.store.remove_container_with_volumes(
            &self.record.id,
            &volumes,
            durability,
        )?;
        self.record.live.phase = Phase::Removing;
        self.waiting.clear();
        self.world.registry.remove(&self.record.id, &self.record.name);
        if let Err(error) = self.world.store.remove_rootfs(&self.record.id) {
            tracing::warn!(container = %self.record.id, %error, "files left behind, recovery will remove them");
        }
        take_volumes(&self.world, &gone);
        drop_hidden_image(&self.world, &self.record);
        self.world.container_event(&self.record, "destroy", []);
        self.publish();
        Ok(())
    }
}

/// An image that was removed by force goes with its last container.
fn drop_hidden_image(world: &World, record: &Record) {
    let nameless = world.store.tags_of(&record.image).is_ok_and(|names| names.is_empty());
    if nameless && let Err(error) = world.images.drop_hidden() {
        tracing::warn!(image = %record.image, %error, "image left behind, a prune removes it");
    }
}

/// Names of the volumes that were made for it without a name.
fn anonymous(world: &World, record: &Record) -> Vec<String> {
    record.volumes().filter(|name| is_anonymous(world, name)).map(str::to_owned).collect()
}

fn is_anonymous(world: &World, name: &str) -> bool {
    let row = world.store.volume(name).ok().flatten();
    row.is_some_and(|row| VolumeBody::parse(&row.body).anonymous)
}

/// Takes the data of volumes that went with their container.
fn take_volumes(world: &World, gone: &[String]) {
    if gone.is_empty() {
        return;
    }
    if let Err(error) = world.store.finish_volume_removals() {
        tracing::warn!(%error, "data of removed volumes left behind, recovery will remove it");
    }
    for name in gone {
        tell_destroyed(world, name);
    }
}

fn tell_destroyed(world: &World, volume: &str) {
    let driver = [("driver".to_owned(), "local".to_owned())].into();
    world.events.emit("volume", "destroy", volume, driver);
}

/// Removes those of `names` that are anonymous and that nobody else uses.
pub(crate) fn volumes_of<'a>(world: &World, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if !is_anonymous(world, name) {
            continue;
        }
        match world.store.remove_volume(name) {
            Ok(_) => tell_destroyed(world, name),
            Err(capsa_store::Error::InUse { .. }) => {}
            Err(error) => tracing::warn!(volume = name, %error, "anonymous volume left behind"),
        }
    }
}
