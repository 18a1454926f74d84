//! Removing a container: the record first, then its files.
//!
//! A crash in between leaves a directory without a record, which recovery removes.

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
        self.world.store.remove_container(&self.record.id, durability(&self.record.spec))?;
        self.record.live.phase = Phase::Removing;
        self.waiting.clear();
        self.world.registry.remove(&self.record.id, &self.record.name);
        if let Err(error) = self.world.store.remove_rootfs(&self.record.id) {
            tracing::warn!(container = %self.record.id, %error, "files left behind, recovery will remove them");
        }
        if volumes {
            anonymous_volumes(&self.world, &self.record);
        }
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

/// Removes the anonymous volumes that only this container used.
fn anonymous_volumes(world: &World, record: &Record) {
    volumes_of(world, record.volumes());
}

/// Removes those of `names` that are anonymous and that nobody else uses.
pub(crate) fn volumes_of<'a>(world: &World, names: impl Iterator<Item = &'a str>) {
    for name in names {
        let Ok(Some(row)) = world.store.volume(name) else { continue };
        if !VolumeBody::parse(&row.body).anonymous {
            continue;
        }
        match world.store.remove_volume(name) {
            Ok(_) => {
                let driver = [("driver".to_owned(), "local".to_owned())].into();
                world.events.emit("volume", "destroy", name, driver);
            }
            Err(capsa_store::Error::InUse { .. }) => {}
            Err(error) => tracing::warn!(volume = name, %error, "anonymous volume left behind"),
        }
    }
}
